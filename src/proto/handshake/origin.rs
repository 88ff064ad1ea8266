//! The pages that may connect ([RFC 6455 §10.2]).
//!
//! A browser sends the cookies of a site with every WebSocket that any page opens to it, so a server
//! that takes all origins lets every page act for its visitors.
//!
//! [RFC 6455 §10.2]: https://www.rfc-editor.org/rfc/rfc6455#section-10.2

/// The pages that may connect.
#[derive(Clone, Debug, Default)]
pub(crate) enum Origins {
    #[default]
    SameHost,
    /// These, and the same host.
    Listed(Vec<String>),
    Any,
}

impl Origins {
    /// Whether a page of `origin` may connect to `host`, with a client that is known to speak TLS if
    /// `is_secure` says so.
    pub(super) fn allow(&self, origin: &str, host: &str, is_secure: bool) -> bool {
        match self {
            Self::Any => true,
            Self::SameHost => is_same_host(origin, host, is_secure),
            Self::Listed(list) => {
                let is_listed = |listed: &String| listed.eq_ignore_ascii_case(origin);
                list.iter().any(is_listed) || is_same_host(origin, host, is_secure)
            }
        }
    }
}

/// Whether `origin` names the host that the request was sent to.
///
/// If the client is known to speak TLS, its page must have come over TLS as well, or an attacker on the way
/// could have written it. Otherwise a proxy may end TLS, and any scheme will do.
fn is_same_host(origin: &str, host: &str, is_secure: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let (is_encrypted, default_port) = match scheme {
        // `ws` and `wss` are of programs: a browser says the scheme of its page.
        "http" | "ws" => (false, ":80"),
        "https" | "wss" => (true, ":443"),
        _ => return false,
    };
    if is_secure && !is_encrypted {
        return false;
    }
    let without_port = |name: &str| name.strip_suffix(default_port).unwrap_or(name).to_owned();
    !authority.is_empty() && without_port(authority).eq_ignore_ascii_case(&without_port(host))
}
