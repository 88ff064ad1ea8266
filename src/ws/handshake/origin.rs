//! Whose pages may connect ([RFC 6455 §10.2]).
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
    #[cfg_attr(not(feature = "accept"), expect(dead_code, reason = "read at the upgrade"))]
    Listed(Vec<String>),
    Any,
}

#[cfg(feature = "accept")]
impl Origins {
    /// May a page of `origin` connect to `host`?
    pub(super) fn allow(&self, origin: &str, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::SameHost => is_same_host(origin, host),
            Self::Listed(list) => {
                let is_listed = |listed: &String| listed.eq_ignore_ascii_case(origin);
                list.iter().any(is_listed) || is_same_host(origin, host)
            }
        }
    }
}

/// Does `origin` name the host that the request was sent to?
///
/// The scheme is not compared: behind a proxy that ends TLS it is not the one the client used.
#[cfg(feature = "accept")]
fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_port = |name: &str| name.strip_suffix(default_port).unwrap_or(name).to_owned();
    !authority.is_empty() && without_port(authority).eq_ignore_ascii_case(&without_port(host))
}
