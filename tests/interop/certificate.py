"""A certificate that nobody has issued."""

import subprocess


def make_certificate(folder, name):
    """A self-signed certificate for `localhost` and 127.0.0.1, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    made = subprocess.run([
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate,
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ], capture_output=True, timeout=20)
    assert made.returncode == 0, made.stderr.decode()
    return certificate, key
