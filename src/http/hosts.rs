//! The host names that a server answers for.
//!
//! A browser lets a page read the answers of the page's own host, and looks up that host in the DNS. The
//! owner of the name can let the DNS return an address inside another network (DNS rebinding). The page then
//! talks to a server there, and `Origin` and `Host` name the same host. A server recognizes this only if it
//! knows its own names.

use tide::http::url::Host;

/// The hosts that requests may name. Without a list, all are allowed.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedHosts(Option<Vec<Pattern>>);

/// An entry of the list. Its name has the form that it has in the URL of a request.
#[derive(Clone, Debug)]
struct Pattern {
    name: String,
    /// Whether it matches all names below this one, and not this name itself.
    is_parent: bool,
}

impl AllowedHosts {
    /// Reads a list of names, addresses, and `*.` with a name. The error is a reason to show to the user.
    pub(super) fn listed(hosts: impl Iterator<Item = String>) -> Result<Self, String> {
        let patterns = hosts.map(|host| {
            let parent = host.strip_prefix("*.");
            let name = normal(parent.unwrap_or(&host));
            let name = name.ok_or_else(|| format!("`{host}` is not a host"))?;
            Ok(Pattern { name, is_parent: parent.is_some() })
        });
        match patterns.collect::<Result<Vec<_>, String>>()? {
            patterns if patterns.is_empty() => Err("no host is listed".into()),
            patterns => Ok(Self(Some(patterns))),
        }
    }

    /// Whether a request for this host, in the form of `Url`, may be answered.
    pub(super) fn allow(&self, host: Option<&str>) -> bool {
        let Some(patterns) = &self.0 else { return true };
        let host = host.map(without_root).unwrap_or_default();
        patterns.iter().any(|pattern| pattern.matches(host))
    }
}

impl Pattern {
    fn matches(&self, host: &str) -> bool {
        if !self.is_parent {
            return host == self.name;
        }
        let below = host.strip_suffix(&self.name).and_then(|below| below.strip_suffix('.'));
        below.is_some_and(|below| !below.is_empty())
    }
}

/// A host in the form of `Url`: lower case, international names in ASCII, addresses in their short form.
fn normal(host: &str) -> Option<String> {
    let host = Host::parse(host).ok()?.to_string();
    let is_name = !host.contains('*');
    is_name.then(|| without_root(&host).to_owned())
}

/// The host without the dot of the DNS root: `example.com.` is `example.com`.
fn without_root(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use tide::http::Url;

    use super::*;

    fn allowed(list: &[&str], host: &str) -> bool {
        let hosts = AllowedHosts::listed(list.iter().map(ToString::to_string)).unwrap();
        hosts.allow(Url::parse(&format!("http://{host}/")).unwrap().host_str())
    }

    #[test]
    fn a_host_is_allowed_in_every_spelling() {
        for (listed, host, is_allowed) in [
            ("example.com", "example.com", true),
            ("Example.COM", "EXAMPLE.com:8080", true),
            ("example.com", "example.com.", true),
            ("example.com.", "example.com", true),
            ("example.com", "www.example.com", false),
            ("example.com", "notexample.com", false),
            ("example.com", "example.com.evil.org", false),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "notexample.com", false),
            ("127.0.0.1", "127.1", true),
            ("127.0.0.1", "localhost", false),
            ("[::1]", "[0:0:0:0:0:0:0:1]:80", true),
            ("bücher.example", "xn--bcher-kva.example", true),
        ] {
            assert_eq!(allowed(&[listed], host), is_allowed, "{listed} {host}");
            assert_eq!(allowed(&["other", listed], host), is_allowed, "{listed} {host}");
        }
        assert!(AllowedHosts::default().allow(Some("x")));
    }

    #[test]
    fn a_text_that_is_not_a_host_is_not_listed() {
        for host in [
            "",
            "*",
            "*.",
            "a b",
            "example.com:80",
            "http://x",
            "x/",
            "x#",
            "[::1]:80",
            "[::1",
            "::1",
        ] {
            let error = AllowedHosts::listed([host.to_owned()].into_iter()).unwrap_err();
            assert_eq!(error, format!("`{host}` is not a host"));
        }
        assert!(AllowedHosts::listed(std::iter::empty()).is_err());
    }
}
