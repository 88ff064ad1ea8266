//! Static files: which are served, what of them, and how they are sent.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tidewire::server::Files;
use tidewire::{RequestContext, Server};

use super::{Client, header, serve};

/// A folder that is gone after its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("tidewire-files-{}-{name}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).unwrap();
        folder
    }

    /// Writes a file, and the folders that it is in.
    fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// As [`with`](Self::with), a file that was changed on 1 January 2026.
    fn with_old(self, path: &str, content: &str) -> Self {
        let folder = self.with(path, content);
        let file = File::options().write(true).open(folder.0.join(path)).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_767_225_600, 31_000);
        file.set_modified(modified).unwrap();
        folder
    }

    fn join(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Serves it at `/files`.
    fn serve(&self) -> SocketAddr {
        let mut server = Server::new();
        server.at("/files").serve_dir(&self.0).unwrap();
        serve(server)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The response to a request with these lines; the head of it for a `HEAD`.
fn ask(addr: SocketAddr, line: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    let mut client = Client::to(addr, format!("{line} HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
    if line.starts_with("HEAD ") { client.head() } else { client.response() }
}

fn get(addr: SocketAddr, path: &str) -> String {
    ask(addr, &format!("GET {path}"), &[])
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_default()
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn a_name_is_decoded_once() {
    let folder = Folder::new("names")
        .with("a b+c.txt", "space")
        .with("é.txt", "accent")
        .with("a..b", "dots")
        .with("50%", "percent")
        .with("%61", "encoded twice")
        .with("a", "encoded once")
        .with("deep/er/x.txt", "deep");
    let addr = folder.serve();
    for (path, content) in [
        ("a%20b+c.txt", "space"),
        ("%61%20%62%2bc%2Etxt", "space"),
        ("%C3%A9.txt", "accent"),
        ("é.txt", "accent"),
        ("a..b", "dots"),
        ("50%25", "percent"),
        ("%2561", "encoded twice"),
        ("%61", "encoded once"),
        ("deep/er/x.txt", "deep"),
        ("deep/er/x.txt?query=%2e%2e/", "deep"),
    ] {
        let response = get(addr, &format!("/files/{path}"));
        assert_eq!((status(&response), body(&response)), ("200", content), "{path}");
    }
}

/// Paths below `/files` that lead nowhere, each as its bytes.
const ESCAPES: &[&str] = &[
    "missing",
    "../secret.txt",
    "%2e%2e/secret.txt",
    ".%2E/secret.txt",
    "..%2fsecret.txt",
    "..%2Fsecret.txt",
    "%2e%2e%2fsecret.txt",
    "..%5csecret.txt",
    "..\\secret.txt",
    "%252e%252e/secret.txt",
    "..%252fsecret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "%c0%af..%c0%afsecret.txt",
    "..;/secret.txt",
    "..%00/secret.txt",
    "sub/../../secret.txt",
    "sub/%2e%2e/%2e%2e/secret.txt",
    "sub/..%2f..%2fsecret.txt",
    "sub//../secret.txt",
    "./page.html",
    "%2e/page.html",
    "/",
    "//",
    "/page.html",
    "//page.html",
    "sub//a.txt",
    "sub%2fa.txt",
    "sub%5ca.txt",
    "sub\\a.txt",
    "page.html/",
    "page.html/.",
    "page.html/x",
    "page.html%00",
    "page.html%00.txt",
    "page.html::$DATA",
    "page.html:stream",
    "page.html%20",
    "page.html.",
    "con",
    "nul.txt",
    "c:/windows/win.ini",
    "c:%5cwindows%5cwin.ini",
    "%5c%5chost%5cshare",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "~root/.bashrc",
    ".env",
    "%2eenv",
    ".git/config",
    ".git/",
    "sub/.hidden",
    ".well-known/x",
    "...",
    "sub/",
    "%ff",
    "%FF%FE/x",
];

#[test]
fn no_spelling_of_a_path_leads_out_of_the_folder_or_to_a_hidden_file() {
    let folder = Folder::new("escapes")
        .with("secret.txt", "secret")
        .with("public/page.html", "page")
        .with("public/index.html", "secret")
        .with("public/sub/a.txt", "secret")
        .with("public/.env", "secret")
        .with("public/.git/config", "secret")
        .with("public/.well-known/x", "secret")
        .with("public/sub/.hidden", "secret");
    let mut server = Server::new();
    server.at("/files").serve_dir(folder.join("public")).unwrap();
    let mut root = Server::new();
    root.at("/").serve_dir(folder.join("public")).unwrap();
    let mut inner = Server::new();
    inner.at("/files").serve_dir(folder.join("public")).unwrap();
    let mut nested = Server::new();
    nested.nest("/app", inner);
    let long = format!("{}x", "a".repeat(300));
    let deep = "a/".repeat(2500);
    let all = ESCAPES.iter().copied().chain([&*long, &*deep]);
    for (addr, prefix) in
        [(serve(server), "/files"), (serve(root), ""), (serve(nested), "/app/files")]
    {
        for path in all.clone() {
            for method in ["GET", "HEAD"] {
                let request = format!("{method} {prefix}/{path} HTTP/1.1\r\nHost: x\r\n\r\n");
                let mut client = Client::to(addr, request).half_close();
                let answer = client.rest();
                assert!(!answer.contains("secret"), "{prefix}/{path}: {answer}");
                // Dot segments are refused before any route is looked for.
                assert!(matches!(status(&answer), "400" | "404"), "{prefix}/{path}: {answer}");
                assert_eq!(header(&answer, "location"), None, "{prefix}/{path}");
            }
        }
        assert_eq!(body(&get(addr, &format!("{prefix}/page.html"))), "page");
    }
}

#[test]
fn hidden_files_are_served_if_asked_for_and_a_hidden_folder_may_be_mounted() {
    let folder = Folder::new("hidden").with(".well-known/x", "x").with(".env", "env");
    let mut server = Server::new();
    server.at("/all").files(Files::new(&folder.0).serve_hidden_files()).unwrap();
    server.at("/.well-known").serve_dir(folder.join(".well-known")).unwrap();
    let addr = serve(server);
    assert_eq!(body(&get(addr, "/all/.env")), "env");
    assert_eq!(body(&get(addr, "/all/.well-known/x")), "x");
    assert_eq!(body(&get(addr, "/.well-known/x")), "x");
    assert_eq!(status(&get(addr, "/all/..%2fx")), "404");
}

#[cfg(unix)]
#[test]
fn a_symlink_is_followed_unless_it_leads_out() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new("symlinks")
        .with("secret.txt", "secret")
        .with("outside/secret.txt", "secret")
        .with("public/real/a.txt", "inside");
    let public = folder.join("public");
    for (target, link) in [
        ("real/a.txt", "file"),
        ("real", "folder"),
        ("../public/real/a.txt", "around"),
        ("../secret.txt", "up"),
        ("../outside", "up-folder"),
        ("real/../../secret.txt", "up-later"),
        ("/etc/passwd", "absolute"),
        ("loop", "loop"),
        ("nowhere", "dangling"),
    ] {
        symlink(target, public.join(link)).unwrap();
    }
    symlink(folder.join("secret.txt"), public.join("absolute-secret")).unwrap();
    symlink(public.join("real/a.txt"), public.join("absolute-inside")).unwrap();
    symlink("../up", public.join("real/twice")).unwrap();
    let mut server = Server::new();
    server.at("/files").serve_dir(&public).unwrap();
    // The server's own paths may lead anywhere.
    symlink("public", folder.join("current")).unwrap();
    server.at("/current").serve_dir(folder.join("current")).unwrap();
    server.at("/one").serve_file(public.join("up")).unwrap();
    let addr = serve(server);

    for path in ["/files/file", "/files/folder/a.txt", "/current/real/a.txt"] {
        assert_eq!(body(&get(addr, path)), "inside", "{path}");
    }
    assert_eq!(body(&get(addr, "/one")), "secret");
    for path in [
        "around",
        "up",
        "up-folder/secret.txt",
        "up-folder",
        "up-folder/",
        "up-later",
        "absolute",
        "absolute-secret",
        "absolute-inside",
        "real/twice",
        "loop",
        "dangling",
    ] {
        let response = get(addr, &format!("/files/{path}"));
        assert_eq!((status(&response), body(&response)), ("404", ""), "{path}");
    }
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    let folder = Folder::new("kinds").with("a.txt", "a");
    let fifos = ["fifo", "fifo.html", "sub/index.html", "one"].map(|name| folder.join(name));
    fs::create_dir(folder.join("sub")).unwrap();
    assert!(Command::new("mkfifo").args(&fifos[..3]).status().unwrap().success());
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    fs::write(folder.join("one"), "one").unwrap();
    let mut server = Server::new();
    server.at("/files").serve_dir(&folder.0).unwrap();
    server.at("/one").serve_file(folder.join("one")).unwrap();
    let addr = serve(server);
    assert_eq!(body(&get(addr, "/one")), "one");
    fs::remove_file(folder.join("one")).unwrap();
    assert!(Command::new("mkfifo").arg(&fifos[3]).status().unwrap().success());

    for path in ["/files/fifo", "/files/fifo.html", "/files/sub/", "/files/socket", "/one"] {
        for method in ["GET", "HEAD"] {
            let response = ask(addr, &format!("{method} {path}"), &[]);
            assert_eq!(status(&response), "404", "{method} {path}");
        }
    }
    assert_eq!(body(&get(addr, "/files/a.txt")), "a");
}

#[test]
fn the_path_of_a_folder_without_a_slash_is_redirected_on_this_host() {
    let folder = Folder::new("redirects")
        .with("index.html", "top")
        .with("docs/index.html", "docs")
        .with("evil.example/index.html", "evil")
        .with("a b/index.html", "space");
    let mut inner = Server::new();
    inner.at("/files").serve_dir(&folder.0).unwrap();
    let mut server = Server::new();
    server.at("/").serve_dir(&folder.0).unwrap();
    server.at("/files").serve_dir(&folder.0).unwrap();
    let mut nested = Server::new();
    nested.nest("/app", inner);
    let (addr, nested) = (serve(server), serve(nested));
    for (path, location) in [
        ("/docs", "./docs/"),
        ("/docs?a=b&c=//d", "./docs/?a=b&c=//d"),
        ("/files", "./files/"),
        ("/files/docs", "./docs/"),
        ("/app/files/docs", "./docs/"),
        ("/evil.example", "./evil.example/"),
        ("/a%20b", "./a%20b/"),
        ("/%64ocs", "./%64ocs/"),
    ] {
        let addr = if path.starts_with("/app/") { nested } else { addr };
        for method in ["GET", "HEAD"] {
            let response = ask(addr, &format!("{method} {path}"), &[]);
            assert_eq!(status(&response), "308", "{path}");
            assert_eq!(header(&response, "location"), Some(location), "{path}");
        }
        // As a client reads it.
        let base = tide::http::Url::parse(&format!("http://x{path}")).unwrap();
        let target = base.join(location).unwrap();
        assert_eq!(target.host_str(), Some("x"));
        let path = &target[tide::http::url::Position::BeforePath..];
        assert_eq!(status(&get(addr, path)), "200", "{path}");
    }
    for path in [
        "//evil.example",
        "///evil.example",
        "/%2fevil.example",
        "/%5cevil.example",
        "/\\evil.example",
    ] {
        for path in [path.to_owned(), format!("{path}/"), format!("/files{path}")] {
            let response = get(addr, &path);
            assert_eq!(status(&response), "404", "{path}");
            assert_eq!(header(&response, "location"), None, "{path}");
        }
    }
    #[cfg(unix)]
    {
        let _folder = folder.with("http:/index.html", "colon");
        let response = get(addr, "/http:");
        assert_eq!(header(&response, "location"), Some("./http:/"));
    }
}

#[test]
fn a_folder_has_the_index_that_the_options_name() {
    let folder = Folder::new("index")
        .with("index.html", "index")
        .with("start.txt", "start")
        .with("empty/x", "x")
        .with("nested/index.html/x", "x");
    let mut server = Server::new();
    server.at("/default").serve_dir(&folder.0).unwrap();
    server.at("/slash/").serve_dir(&folder.0).unwrap();
    server.at("/start").files(Files::new(&folder.0).index("start.txt")).unwrap();
    server.at("/none").files(Files::new(&folder.0).no_index()).unwrap();
    let addr = serve(server);
    for (path, expected) in [
        ("/default/", Some(("text/html;charset=utf-8", "index"))),
        ("/slash/", Some(("text/html;charset=utf-8", "index"))),
        ("/start/", Some(("text/plain;charset=utf-8", "start"))),
        ("/default/empty/", None),
        ("/default/nested/", None),
        ("/none", None),
        ("/none/", None),
        ("/none/empty", None),
        ("/none/empty/", None),
    ] {
        let response = get(addr, path);
        let found = (status(&response) == "200")
            .then(|| (header(&response, "content-type").unwrap(), body(&response)));
        assert_eq!(found, expected, "{path}: {response}");
    }
    assert_eq!(body(&get(addr, "/none/index.html")), "index");
}

#[test]
fn a_route_of_the_folder_s_own_path_takes_precedence_whenever_it_is_added() {
    async fn own(_: RequestContext) -> tidewire::HandlerResult<&'static str> {
        Ok("own")
    }
    let folder = Folder::new("precedence").with("index.html", "index").with("a.txt", "a");
    let mut before = Server::new();
    before.get("/", own).get("/:user", own).get("/x/", own);
    before.at("/").serve_dir(&folder.0).unwrap();
    before.at("/:user").serve_dir(&folder.0).unwrap();
    before.at("/x").serve_dir(&folder.0).unwrap();
    let mut after = Server::new();
    after.at("/").serve_dir(&folder.0).unwrap();
    after.at("/:user").serve_dir(&folder.0).unwrap();
    after.at("/x").serve_dir(&folder.0).unwrap();
    after.get("/", own).get("/:user", own).get("/x/", own);
    for addr in [serve(before), serve(after)] {
        for (path, expected) in [
            ("/", "own"),
            ("/me", "own"),
            ("/me/", "index"),
            ("/me/a.txt", "a"),
            ("/x/", "own"),
            ("/x/a.txt", "a"),
        ] {
            assert_eq!(body(&get(addr, path)), expected, "{path}");
        }
    }
}

#[test]
fn a_file_is_sent_with_its_type_and_validators_and_head_is_the_same_without_the_body() {
    let folder = Folder::new("headers");
    let folder = folder.with_old("a.txt", "0123456789").with_old("empty.css", "");
    let files = Files::new(&folder.0).cache_control("max-age=60");
    let mut server = Server::new();
    server.at("/files").files(files).unwrap();
    server.at("/").get(|_| async { Ok("pong") });
    let addr = serve(server);
    for (path, media_type, len, body) in
        [("a.txt", "text/plain", 10, "0123456789"), ("empty.css", "text/css", 0, "")]
    {
        let head = format!(
            "HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\ncache-control: max-age=60\r\n\
             content-length: {len}\r\ncontent-type: {media_type};charset=utf-8\r\n\
             etag: \"6955b900.7918-{len:x}\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             x-content-type-options: nosniff\r\n\r\n"
        );
        for (method, body) in [("GET", body), ("HEAD", "")] {
            let request = format!("{method} /files/{path} HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut client = Client::to(addr, request);
            let found = client.head();
            let mut lines: Vec<_> = found.trim_end().split("\r\n").collect();
            lines[1..].sort_unstable();
            assert_eq!(lines.join("\r\n") + "\r\n\r\n", head, "{method} {path}");
            // The next response begins where this one has to end.
            let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let rest = client.send(request).rest();
            assert!(rest.starts_with(&format!("{body}HTTP/1.1 200 OK")), "{method} {path}: {rest}");
        }
    }
}

#[test]
fn the_media_type_is_that_of_the_extension() {
    let types = [
        ("a.html", "text/html;charset=utf-8"),
        ("a.HTM", "text/html;charset=utf-8"),
        ("a.js", "text/javascript;charset=utf-8"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.svg", "image/svg+xml"),
        ("a.woff2", "font/woff2"),
        ("a.min.css", "text/css;charset=utf-8"),
        ("a.unknown-to-all", "application/octet-stream"),
        ("none", "application/octet-stream"),
    ];
    let mut folder = Folder::new("types");
    for (name, _) in types {
        // What the content looks like does not count.
        folder = folder.with(name, "<html><script>");
    }
    let addr = folder.serve();
    for (name, expected) in types {
        let response = get(addr, &format!("/files/{name}"));
        assert_eq!(header(&response, "content-type"), Some(expected), "{name}");
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"), "{name}");
    }
}

#[test]
fn other_methods_are_405_with_allow() {
    let folder = Folder::new("methods").with("index.html", "index");
    let addr = folder.serve();
    for path in ["/files", "/files/", "/files/index.html", "/files/missing"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            let response = ask(addr, &format!("{method} {path}"), &[]);
            assert_eq!(status(&response), "405", "{method} {path}");
            assert_eq!(header(&response, "allow"), Some("GET, HEAD, OPTIONS"), "{method} {path}");
        }
        let response = ask(addr, &format!("OPTIONS {path}"), &[]);
        assert_eq!(header(&response, "allow"), Some("GET, HEAD, OPTIONS"), "{path}");
    }
}

#[test]
fn a_client_that_has_the_file_is_told_so() {
    let folder = Folder::new("conditions").with_old("a.txt", "0123456789").with("new.txt", "new");
    let addr = folder.serve();
    let etag = "\"6955b900.7918-a\"";
    for (lines, expected) in [
        (&[&*format!("If-None-Match: {etag}")][..], "304"),
        (&[&*format!("If-None-Match: \"x\", W/{etag}")], "304"),
        (&["If-None-Match: \"x\"", &*format!("If-None-Match: {etag}")], "304"),
        (&["If-None-Match: *"], "304"),
        (&["If-None-Match: \"x\""], "200"),
        (&["If-None-Match: \"x\"", "If-Modified-Since: Fri, 02 Jan 2026 00:00:00 GMT"], "200"),
        (&["If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT"], "304"),
        (&["If-Modified-Since: Wed, 31 Dec 2025 23:59:59 GMT"], "200"),
        (&["If-Match: \"x\""], "412"),
        (&["If-Unmodified-Since: Wed, 31 Dec 2025 23:59:59 GMT"], "412"),
    ] {
        for method in ["GET", "HEAD"] {
            let response = ask(addr, &format!("{method} /files/a.txt"), lines);
            assert_eq!(status(&response), expected, "{method} {lines:?}");
            if expected == "304" {
                // RFC 9110 §15.4.5
                assert_eq!(header(&response, "etag"), Some(etag));
                assert!(!response.contains("content-"), "{response}");
            }
        }
    }
    // It may change again in the same tick of the clock.
    let fresh = get(addr, "/files/new.txt");
    let weak = header(&fresh, "etag").unwrap();
    assert!(weak.starts_with("W/\""), "{weak}");
    let response = ask(addr, "GET /files/new.txt", &[&format!("If-None-Match: {weak}")]);
    assert_eq!(status(&response), "304");
    fs::write(folder.join("new.txt"), "newer").unwrap();
    let response = ask(addr, "GET /files/new.txt", &[&format!("If-None-Match: {weak}")]);
    assert_eq!((status(&response), body(&response)), ("200", "newer"));
}

#[test]
fn one_range_of_bytes_is_sent_alone() {
    let numbers: Vec<_> = (10_000..40_000).map(|number| number.to_string()).collect();
    let large = numbers.join("\n") + "\n";
    let folder =
        Folder::new("ranges").with_old("a.txt", "0123456789").with_old("large.txt", &large);
    let addr = folder.serve();
    let etag = "If-Range: \"6955b900.7918-a\"";
    for (lines, expected) in [
        (&["Range: bytes=2-5"][..], Some(("bytes 2-5/10", "2345"))),
        (&["Range: bytes=2-"], Some(("bytes 2-9/10", "23456789"))),
        (&["Range: bytes=-3"], Some(("bytes 7-9/10", "789"))),
        (&["Range: bytes=0-0"], Some(("bytes 0-0/10", "0"))),
        (&["Range: bytes=8-99"], Some(("bytes 8-9/10", "89"))),
        (&["Range: bytes=2-5", etag], Some(("bytes 2-5/10", "2345"))),
        (
            &["Range: bytes=2-5", "If-Range: Thu, 01 Jan 2026 00:00:00 GMT"],
            Some(("bytes 2-5/10", "2345")),
        ),
        (&["Range: bytes=2-5", "If-Range: \"x\""], None),
        (&["Range: bytes=2-5", "If-Range: W/\"6955b900.7918-a\""], None),
        (&["Range: bytes=2-5", "If-Range: Thu, 01 Jan 2026 00:00:01 GMT"], None),
        (&["Range: bytes=10-", "If-Range: \"x\""], None),
        (&["Range: bytes=0-1,4-5"], None),
        (&["Range: bytes=0-1", "Range: bytes=4-5"], None),
        (&["Range: lines=2-5"], None),
        (&["Range: bytes=5-2"], None),
    ] {
        let response = ask(addr, "GET /files/a.txt", lines);
        let found = header(&response, "content-range").map(|range| (range, body(&response)));
        assert_eq!(found, expected, "{lines:?}");
        let whole = found.is_none();
        assert_eq!(status(&response), if whole { "200" } else { "206" }, "{lines:?}");
        assert!(!whole || body(&response) == "0123456789", "{lines:?}");
        assert_eq!(header(&response, "content-type"), Some("text/plain;charset=utf-8"));
        let of_head = ask(addr, "HEAD /files/a.txt", lines);
        assert!(of_head.starts_with("HTTP/1.1 200 "), "{lines:?}: {of_head}");
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=99999999999999999999-"] {
        let response = ask(addr, "GET /files/a.txt", &[&format!("Range: {range}")]);
        assert_eq!((status(&response), body(&response)), ("416", ""), "{range}");
        assert_eq!(header(&response, "content-range"), Some("bytes */10"), "{range}");
    }
    // Longer than a piece, and not from the beginning.
    let response = ask(addr, "GET /files/large.txt", &["Range: bytes=600-179999"]);
    assert_eq!(header(&response, "content-range"), Some("bytes 600-179999/180000"));
    assert!(body(&response) == &large[600..]);
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_sent_up_to_its_first_length() {
    let folder = Folder::new("grows").with("large", "");
    let file = File::options().write(true).open(folder.join("large")).unwrap();
    file.set_len(LARGE).unwrap();
    let addr = folder.serve();
    let mut client = Client::to(addr, "GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(header(&client.head(), "content-length"), Some(&*LARGE.to_string()));
    file.set_len(2 * LARGE).unwrap();
    let mut content = vec![0; usize::try_from(LARGE).unwrap() - client.read.len()];
    client.socket.read_exact(&mut content).unwrap();
    client.read.clear();
    let mut client = client.send("HEAD /files/large HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(header(&client.head(), "content-length"), Some(&*(2 * LARGE).to_string()));
}

/// More than the buffers of both sockets hold, in bytes.
const LARGE: u64 = 32 << 20;

#[test]
fn a_file_that_becomes_shorter_while_it_is_sent_ends_the_response_broken() {
    let folder = Folder::new("shrinks").with("large", "");
    let file = File::options().write(true).open(folder.join("large")).unwrap();
    file.set_len(LARGE).unwrap();
    let addr = folder.serve();
    let mut client = Client::to(addr, "GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(header(&client.head(), "content-length"), Some(&*LARGE.to_string()));
    file.set_len(1).unwrap();
    // The end comes by a FIN or by a reset, and too early.
    let (mut len, mut buf) = (client.read.len(), vec![0; 1 << 16]);
    while let Ok(read @ 1..) = client.socket.read(&mut buf) {
        assert!(buf[..read].iter().all(|byte| *byte == 0));
        len += read;
    }
    assert!(u64::try_from(len).unwrap() < LARGE, "{len} bytes");
}

#[test]
fn the_folder_may_be_replaced_while_it_is_served() {
    let folder = Folder::new("replaced").with("public/a.txt", "old");
    let mut server = Server::new();
    server.at("/files").serve_dir(folder.join("public")).unwrap();
    let addr = serve(server);
    assert_eq!(body(&get(addr, "/files/a.txt")), "old");
    fs::remove_dir_all(folder.join("public")).unwrap();
    assert_eq!(status(&get(addr, "/files/a.txt")), "500");
    let _folder = folder.with("public/a.txt", "new");
    assert_eq!(body(&get(addr, "/files/a.txt")), "new");
}

#[test]
fn what_cannot_be_served_is_an_error_that_names_it() {
    let folder = Folder::new("errors").with("file", "");
    let mut server = Server::new();
    let error = server.at("/").serve_dir(folder.join("missing")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(folder.join("missing").to_str().unwrap()), "{error}");
    let error = server.at("/").serve_dir(folder.join("file")).unwrap_err();
    assert!(error.to_string().contains(folder.join("file").to_str().unwrap()), "{error}");
    let error = server.at("/").serve_file(folder.join("missing")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(folder.join("missing").to_str().unwrap()), "{error}");
    server.at("/").serve_file(&folder.0).unwrap_err();

    let files = || Files::new(&folder.0);
    for index in ["", "..", "a/b", "a\\b", "a\0"] {
        let error = server.at("/").files(files().index(index)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{index:?}");
    }
    for value in ["a\r\nSet-Cookie: b", "é", "\0"] {
        let error = server.at("/").files(files().cache_control(value)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{value:?}");
    }
    // Nothing was added on the way.
    let addr = serve(server);
    assert_eq!(status(&get(addr, "/")), "404");
    assert_eq!(status(&get(addr, "/file")), "404");
}

#[test]
fn middleware_of_the_route_runs_around_its_files() {
    struct Tag;

    #[tide::utils::async_trait]
    impl tide::Middleware<()> for Tag {
        async fn handle(&self, req: tide::Request<()>, next: tide::Next<'_, ()>) -> tide::Result {
            let mut response = next.run(req).await;
            response.insert_header("x-tag", "1");
            Ok(response)
        }
    }

    let folder =
        Folder::new("middleware").with("index.html", "index").with("sub/index.html", "sub");
    let mut server = Server::new();
    server.at("/files").with(Tag).serve_dir(&folder.0).unwrap();
    let addr = serve(server);
    for (path, expected) in [
        ("/files", "308"),
        ("/files/", "200"),
        ("/files/sub", "308"),
        ("/files/sub/", "200"),
        ("/files/missing", "404"),
    ] {
        let response = get(addr, path);
        assert_eq!(
            (status(&response), header(&response, "x-tag")),
            (expected, Some("1")),
            "{path}"
        );
    }
}

/// What `/proc` tells of open files.
#[cfg(target_os = "linux")]
mod slow {
    use super::*;
    use crate::support::server_process;
    use crate::support::server_process::Process;
    use crate::support::tcp::{Tcp, until};

    /// The place from which a process reads this file next; `None` if it is not open.
    fn position(process: &str, path: &Path) -> Option<u64> {
        let links = fs::read_dir(format!("/proc/{process}/fd")).unwrap().map(Result::unwrap);
        let mut open = links.filter(|link| fs::read_link(link.path()).is_ok_and(|to| to == path));
        let number = open.next()?.file_name().into_string().unwrap();
        let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
    }

    #[test]
    fn a_client_that_leaves_closes_the_file() {
        let folder = Folder::new("leaves").with("large", "");
        let file = File::options().write(true).open(folder.join("large")).unwrap();
        file.set_len(LARGE).unwrap();
        drop(file);
        let path = fs::canonicalize(folder.join("large")).unwrap();
        let addr = folder.serve();
        let mut client = Client::to(addr, "GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n");
        client.head();
        assert!(position("self", &path).is_some());
        drop(client);
        until("the file is closed", || position("self", &path).is_none());
    }

    /// The server of the test below, whose folder the process above has made.
    #[test]
    fn a_server_of_a_large_file() {
        server_process::serve(|| {
            let parent = std::os::unix::process::parent_id();
            let folder = std::env::temp_dir().join(format!("tidewire-files-{parent}-slow"));
            let mut server = Server::new();
            server.at("/files").serve_dir(folder).unwrap();
            server.get("/peak", |_: RequestContext| async {
                Ok(crate::ALLOCATED.peak_usage().to_string())
            });
            server
        });
    }

    #[test]
    fn a_large_file_waits_for_a_slow_client_and_takes_the_memory_of_a_piece() {
        let folder = Folder::new("slow").with("large", "");
        let path = fs::canonicalize(folder.join("large")).unwrap();
        let content: Vec<u8> = (0..LARGE / 8).flat_map(u64::to_be_bytes).collect();
        File::create(&path).unwrap().write_all(&content).unwrap();
        let process = Process::start("http::files::slow::a_server_of_a_large_file");
        let pid = process.proc("").trim_matches('/').split_once('/').unwrap().1.to_owned();
        let peak = || body(&get(process.addr, "/peak")).parse::<usize>().unwrap();
        let before = peak();

        let mut client = Tcp::connect(process.addr);
        client.send("GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n");
        client.head();
        // Meanwhile the server could read the whole file.
        for _ in 0..500 {
            peak();
        }
        let read = position(&pid, &path).unwrap();
        assert!(read < LARGE / 2, "{read} bytes were read for a client that does not");
        for expected in content.chunks(1 << 16) {
            assert!(client.read(1 << 16) == expected);
        }
        let more = peak() - before;
        assert!(more < 1 << 20, "{more} bytes");
        until("the file is closed", || position(&pid, &path).is_none());
    }
}
