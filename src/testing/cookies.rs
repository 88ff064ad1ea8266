//! The cookies of a client, kept as a browser keeps them ([RFC 6265 §5]).
//!
//! [RFC 6265 §5]: https://www.rfc-editor.org/rfc/rfc6265#section-5

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::runtime::Clock;
use crate::sync::Mutex;

/// The cookies of one visitor, of one host. Clones are the same jar.
#[derive(Clone, Debug, Default)]
pub(super) struct Jar(Arc<Mutex<Vec<Cookie>>>);

#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    path: String,
    /// By the clock of the client; `None` for the end of the visit.
    until: Option<Instant>,
}

impl Jar {
    /// Keeps the cookies of a response to a request for `path`.
    pub(super) fn keep<'a>(
        &self,
        path: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        clock: &Clock,
    ) {
        let lines = headers.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        for line in lines.filter_map(|(_, value)| std::str::from_utf8(value).ok()) {
            let Some(cookie) = Cookie::parse(line, path, clock.now()) else { continue };
            let mut cookies = self.0.lock();
            let is_same = |it: &Cookie| it.name == cookie.name && it.path == cookie.path;
            match cookies.iter_mut().find(|it| is_same(it)) {
                // It keeps its place (§5.3).
                Some(same) => *same = cookie,
                None => cookies.push(cookie),
            }
        }
    }

    /// The value of the header `Cookie` for a request; `None` if there is no cookie for it.
    pub(super) fn header(&self, path: &str, clock: &Clock) -> Option<String> {
        let mut cookies = self.0.lock();
        let now = clock.now();
        cookies.retain(|cookie| cookie.until.is_none_or(|until| until > now));
        let mut sent: Vec<_> =
            cookies.iter().filter(|it| matches(without_query(path), &it.path)).collect();
        // The longest path first; of equal ones the oldest, as they stand (§5.4).
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<_> = sent.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The value of the first cookie of this name.
    pub(super) fn value(&self, name: &str, clock: &Clock) -> Option<String> {
        let (cookies, now) = (self.0.lock(), clock.now());
        let is_alive = |it: &&Cookie| it.until.is_none_or(|until| until > now);
        cookies.iter().filter(is_alive).find(|it| it.name == name).map(|it| it.value.clone())
    }
}

impl Cookie {
    /// Reads a line of `Set-Cookie` (§5.2); `None` if it is none.
    fn parse(line: &str, path: &str, now: Instant) -> Option<Self> {
        let mut parts = line.split(';').map(str::trim);
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() {
            return None;
        }
        let (mut max_age, mut expires, mut own_path) = (None, None, None);
        for attribute in parts {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match &*key {
                "max-age" => max_age = value.parse::<i64>().ok().or(max_age),
                "expires" => expires = until(value, now).or(expires),
                // An empty one, or one without a slash, is the default (§5.2.4).
                "path" => own_path = value.starts_with('/').then(|| value.to_owned()),
                // The client has one host, and no script. `Secure` is met: for browsers, localhost is.
                _ => {}
            }
        }
        // `Max-Age` comes first; 0 and less is a time in the past (§5.2.2).
        let max_age = max_age.map(|age| Duration::from_secs(u64::try_from(age).unwrap_or(0)));
        let until = max_age.map(|age| crate::runtime::later(now, age)).or(expires);
        let path = own_path.unwrap_or_else(|| default_path(path));
        Some(Self { name: name.to_owned(), value: value.to_owned(), path, until })
    }
}

/// The point in time of a date, by a clock that shows `now` at present; `None` if it is none.
fn until(date: &str, now: Instant) -> Option<Instant> {
    // Some servers write the dashes of an older format with a year of four digits.
    let date = httpdate::parse_http_date(date)
        .or_else(|_| httpdate::parse_http_date(&date.replace('-', " ")))
        .ok()?;
    let left = date.duration_since(SystemTime::now()).unwrap_or_default();
    Some(crate::runtime::later(now, left))
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// The path of a cookie that names none: that of the request up to its last slash (§5.1.4).
fn default_path(path: &str) -> String {
    match without_query(path).rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => folder.to_owned(),
        _ => "/".to_owned(),
    }
}

/// Whether a cookie of `own` belongs to a request for `path` (§5.1.4).
fn matches(path: &str, own: &str) -> bool {
    path.strip_prefix(own)
        .is_some_and(|rest| rest.is_empty() || own.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(path: &str, lines: &[&str]) -> (Jar, Clock) {
        let (jar, clock) = (Jar::default(), Clock::default());
        for line in lines {
            jar.keep(path, [("Set-Cookie", line.as_bytes())].into_iter(), &clock);
        }
        (jar, clock)
    }

    #[test]
    fn a_cookie_is_sent_below_its_path_and_the_longest_path_comes_first() {
        let lines = ["a=1; Path=/", "b=2", "c=3; Path=/account/", "d=4; Path=nowhere", "bad", "=x"];
        let (jar, clock) = kept("/account/login?next=/x/y", &lines);
        for (path, sent) in [
            ("/", Some("a=1")),
            ("/accounts", Some("a=1")),
            ("/account", Some("b=2; d=4; a=1")),
            ("/account/me?x", Some("c=3; b=2; d=4; a=1")),
        ] {
            assert_eq!(jar.header(path, &clock).as_deref(), sent, "{path}");
        }
        assert_eq!(kept("/login", &["b=2"]).0.header("/else", &clock).as_deref(), Some("b=2"));
        assert_eq!(kept("/login", &[]).0.header("/", &clock), None);
    }

    #[test]
    fn a_cookie_is_replaced_and_deleted_by_another_of_its_name_and_path() {
        for (line, left) in [
            ("a=2", Some("a=2; b=1")),
            ("a=2; Path=/other", Some("a=1; b=1")),
            ("a=; Max-Age=0", Some("b=1")),
            ("a=; max-age=-5", Some("b=1")),
            ("a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", Some("b=1")),
            ("a=; expires=Thu, 01-Jan-1970 00:00:00 GMT", Some("b=1")),
            ("a=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60", Some("a=2; b=1")),
            ("a=2; Expires=Fri, 01 Jan 2100 00:00:00 GMT", Some("a=2; b=1")),
            ("a=2; Expires=soon; Max-Age=soon; HttpOnly; SameSite=Lax; Secure", Some("a=2; b=1")),
        ] {
            let (jar, clock) = kept("/", &["a=1", "b=1", line]);
            assert_eq!(jar.header("/", &clock).as_deref(), left, "{line}");
        }
    }
}
