//! A tunnel through an HTTP proxy ([RFC 9110 §9.3.6]).
//!
//! [RFC 9110 §9.3.6]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6

use futures::io::AsyncWriteExt;

use super::response::Answer;
use super::target::{Target, basic, invalid, parse_url};
use crate::error::ConnectError;
use crate::runtime::Clock;
use crate::stream::Stream;

/// The address of a proxy, and the credentials for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Proxy {
    /// Whether the connection to the proxy is encrypted.
    pub(super) is_secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl Proxy {
    /// Reads the URL of a proxy: `http` or `https`, with user and password if the proxy needs them.
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        let url = parse_url(text)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(&url, "the scheme of a proxy is http or https"));
        }
        let authorization = basic(&url);
        let Target { is_secure, host, port, .. } = Target::parse(text)?;
        Ok(Self { is_secure, host, port, authorization })
    }

    /// Asks for a tunnel to `target` on a connection to the proxy.
    pub(super) async fn tunnel(
        &self,
        mut stream: Stream,
        target: &Target,
        clock: &Clock,
    ) -> Result<Stream, ConnectError> {
        let request = self.request(target);
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let answer = Answer::read(&mut stream).await?;
        if !(200..300).contains(&answer.response.status) {
            let response = answer.read_body(&mut stream, clock).await;
            return Err(ConnectError::ProxyRefused(Box::new(response)));
        }
        if answer.unread.is_empty() {
            return Ok(stream);
        }
        // The server behind the proxy never speaks first, so these bytes cannot be its own.
        let reason = "the proxy sent data after its response head".into();
        Err(ConnectError::MalformedResponse { reason })
    }

    fn request(&self, target: &Target) -> String {
        let host = if target.host.contains(':') {
            format!("[{}]:{}", target.host, target.port)
        } else {
            format!("{}:{}", target.host, target.port)
        };
        let authorization = self.authorization.as_deref().map_or_else(String::new, |credentials| {
            format!("Proxy-Authorization: {credentials}\r\n")
        });
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n")
    }
}

fn failed(error: std::io::Error) -> ConnectError {
    ConnectError::Io(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_asked_for_with_the_port_and_the_credentials_of_the_proxy() {
        let proxy = Proxy::parse("http://ada:x@proxy.example:3128").unwrap();
        let target = Target::parse("wss://bob:y@[::1]/chat").unwrap();
        assert_eq!(
            proxy.request(&target),
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\
             Proxy-Authorization: Basic YWRhOng=\r\n\r\n",
        );
    }

    #[test]
    fn a_proxy_is_reached_by_http() {
        for url in ["socks5://proxy.example", "ws://proxy.example", "proxy.example:3128"] {
            let refused = Proxy::parse(url);
            assert!(matches!(refused, Err(ConnectError::InvalidUrl { .. })), "{url}: {refused:?}");
        }
    }
}
