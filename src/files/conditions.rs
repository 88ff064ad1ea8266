//! The validators of a file, and the conditions of a request on them ([RFC 9110 §8.8, §13]).
//!
//! [RFC 9110 §8.8, §13]: https://www.rfc-editor.org/rfc/rfc9110#section-13

use std::time::{Duration, SystemTime};

use super::range::Range;
use crate::proto::handshake::HeaderLines;

/// The time after a change in which a second one might leave the time of change as it is, and so the tag.
const UNSETTLED: Duration = Duration::from_secs(2);

/// Build systems set the time of files to the first or second second of 1970. It tells nothing then.
const TELLING: Duration = Duration::from_secs(2);

/// The first second of the year 10000, for which HTTP has no date.
const TOO_LATE: Duration = Duration::from_secs(253_402_300_800);

/// What identifies the content of a file.
#[derive(Clone, Debug)]
pub(super) struct Validators {
    pub(super) len: u64,
    /// The time of change, since 1970; `None` if it tells nothing.
    modified: Option<Duration>,
    /// Whether the last change is so long ago that each further one changes the tag.
    is_settled: bool,
    /// Whether the change lies in the future.
    is_ahead: bool,
}

impl Validators {
    pub(super) fn new(len: u64, modified: Option<SystemTime>, now: SystemTime) -> Self {
        let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let modified = modified.and_then(since_1970);
        let modified = modified.filter(|time| (TELLING..TOO_LATE).contains(time));
        let age = modified.and_then(|time| since_1970(now)?.checked_sub(time));
        Self {
            len,
            modified,
            is_settled: age.is_some_and(|age| age >= UNSETTLED),
            is_ahead: age.is_none(),
        }
    }

    /// The value of `ETag`.
    pub(super) fn etag(&self) -> Option<String> {
        let weak = if self.is_settled { "" } else { "W/" };
        Some(format!("{weak}{}", self.opaque_tag()?))
    }

    fn opaque_tag(&self) -> Option<String> {
        let time = self.modified?;
        Some(format!("\"{:x}.{:x}-{:x}\"", time.as_secs(), time.subsec_nanos(), self.len))
    }

    /// The value of `Last-Modified`, which may not lie in the future (§8.8.2.1).
    pub(super) fn last_modified(&self) -> Option<String> {
        let time = self.modified.filter(|_| !self.is_ahead)?;
        SystemTime::UNIX_EPOCH.checked_add(time).map(httpdate::fmt_http_date)
    }

    /// Whether the list of a header has the tag, or is `*`.
    fn is_in(&self, list: &str, is_strong: bool) -> bool {
        let list = list.trim_matches([' ', '\t']);
        let of_this = self.opaque_tag().filter(|_| !is_strong || self.is_settled);
        list == "*"
            || of_this.is_some_and(|own| {
                tags(list).any(|(is_weak, tag)| tag == own && !(is_strong && is_weak))
            })
    }

    /// Whether the file has changed after a date; `None` if that is none, or if the time of change tells nothing.
    fn changed_after(&self, date: &str) -> Option<bool> {
        let date = httpdate::parse_http_date(date.trim_matches([' ', '\t'])).ok()?;
        let date = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some(self.modified?.as_secs() > date.as_secs())
    }
}

/// The entity tags of a list, with their quotes, each with whether it is weak. What is malformed ends the list.
fn tags(list: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let strong = rest.strip_prefix("W/");
        let is_weak = strong.is_some();
        let quoted = strong.unwrap_or(rest);
        // A comma may be a part of a tag.
        let len = quoted.strip_prefix('"')?.find('"')?.saturating_add(2);
        let (tag, after) = quoted.split_at_checked(len)?;
        rest = after;
        Some((is_weak, tag))
    })
}

/// The conditions of a request, and the range that it asks for. Several lines of a header are one.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<String>,
    if_unmodified_since: Option<String>,
    if_range: Option<String>,
    /// Of a `GET` only (§14.2).
    range: Option<String>,
}

/// What the conditions lead to.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Send(Range),
    NotModified,
    PreconditionFailed,
}

impl Conditions {
    pub(super) fn of(request: &impl HeaderLines, is_get: bool) -> Self {
        let line = |name| {
            let mut lines = request.lines(name);
            let first = lines.next()?.to_owned();
            Some(lines.fold(first, |lines, line| lines + ", " + line))
        };
        Self {
            if_match: line("if-match"),
            if_none_match: line("if-none-match"),
            if_modified_since: line("if-modified-since"),
            if_unmodified_since: line("if-unmodified-since"),
            if_range: line("if-range"),
            range: line("range").filter(|_| is_get),
        }
    }

    /// Compares the conditions with a file, in the order of §13.2.2.
    pub(super) fn judge(&self, file: &Validators) -> Verdict {
        let is_wanted = match (&self.if_match, &self.if_unmodified_since) {
            (Some(list), _) => file.is_in(list, true),
            (None, Some(date)) => file.changed_after(date) != Some(true),
            (None, None) => true,
        };
        if !is_wanted {
            return Verdict::PreconditionFailed;
        }
        let is_known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(list), _) => file.is_in(list, false),
            (None, Some(date)) => file.changed_after(date) == Some(false),
            (None, None) => false,
        };
        if is_known {
            return Verdict::NotModified;
        }
        let range = self.range.as_deref().filter(|_| self.allow_range(file));
        Verdict::Send(range.map_or(Range::Whole, |range| Range::parse(range, file.len)))
    }

    /// Whether the client's part and this file belong together (§13.1.5).
    fn allow_range(&self, file: &Validators) -> bool {
        let Some(validator) = self.if_range.as_deref() else { return true };
        let validator = validator.trim_matches([' ', '\t']);
        // A single tag or date. It has to be a strong validator.
        file.is_settled
            && (file.etag().as_deref() == Some(validator)
                || file.last_modified().as_deref() == Some(validator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const EARLIER: &str = "Wed, 31 Dec 2025 23:59:59 GMT";
    const LATER: &str = "Thu, 01 Jan 2026 00:00:01 GMT";
    const TAG: &str = "\"6955b900.1f-a\"";

    /// A file of 10 bytes, changed at [`DATE`] and 31 ns, and looked at after `age`.
    fn file(age: Duration) -> Validators {
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_767_225_600, 31);
        Validators::new(10, Some(modified), modified + age)
    }

    fn conditions(lines: &[(&'static str, &str)]) -> Conditions {
        let mut headers = http::HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        Conditions::of(&headers, true)
    }

    #[test]
    fn the_tag_tells_length_and_time_and_is_weak_for_2_s() {
        let [fresh, old] = [Duration::from_millis(1999), UNSETTLED].map(file);
        assert_eq!(old.etag().as_deref(), Some(TAG));
        assert_eq!(fresh.etag(), Some(format!("W/{TAG}")));
        for file in [fresh, old] {
            assert_eq!(file.last_modified().as_deref(), Some(DATE));
        }
    }

    #[test]
    fn times_that_tell_nothing_or_have_no_date_are_left_out() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let none = [
            None,
            Some(SystemTime::UNIX_EPOCH),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
            Some(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
            Some(SystemTime::UNIX_EPOCH + TOO_LATE),
        ];
        for modified in none {
            let file = Validators::new(1, modified, now);
            assert_eq!((file.etag(), file.last_modified()), (None, None), "{modified:?}");
        }
        let ahead = Validators::new(1, Some(now + Duration::from_secs(9)), now);
        assert!(ahead.etag().unwrap().starts_with("W/"));
        assert_eq!(ahead.last_modified(), None);
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_rfc_9110_13_2_2() {
        use Verdict::{NotModified, PreconditionFailed, Send};

        let weak = &*format!("W/{TAG}");
        let listed = &*format!("\"a,b\", W/\"c\" ,{TAG}");
        let part = Send(Range::Part(0, 0));
        let whole = Send(Range::Whole);
        let range = ("range", "bytes=0-0");
        let cases: [(&[(&str, &str)], &Verdict); 30] = [
            (&[], &whole),
            (&[("if-none-match", TAG)], &NotModified),
            (&[("if-none-match", weak)], &NotModified),
            (&[("if-none-match", "*")], &NotModified),
            (&[("if-none-match", listed)], &NotModified),
            (&[("if-none-match", "\"a\""), ("if-none-match", TAG)], &NotModified),
            (&[("if-none-match", "\"a\"")], &whole),
            (&[("if-none-match", "6955b900.1f-a")], &whole),
            (&[("if-none-match", "\"a\"\"")], &whole),
            // The tag counts, and not the date.
            (&[("if-none-match", "\"a\""), ("if-modified-since", LATER)], &whole),
            (&[("if-modified-since", DATE)], &NotModified),
            (&[("if-modified-since", LATER)], &NotModified),
            (&[("if-modified-since", EARLIER)], &whole),
            (&[("if-modified-since", "yesterday")], &whole),
            (&[("if-match", TAG)], &whole),
            (&[("if-match", "*")], &whole),
            (&[("if-match", weak)], &PreconditionFailed),
            (&[("if-match", "\"a\"")], &PreconditionFailed),
            (&[("if-match", "\"a\""), ("if-none-match", TAG)], &PreconditionFailed),
            (&[("if-match", TAG), ("if-unmodified-since", EARLIER)], &whole),
            (&[("if-unmodified-since", EARLIER)], &PreconditionFailed),
            (&[("if-unmodified-since", DATE)], &whole),
            (&[("if-unmodified-since", "yesterday")], &whole),
            (&[range], &part),
            (&[range, ("if-none-match", TAG)], &NotModified),
            (&[range, ("if-range", TAG)], &part),
            (&[range, ("if-range", DATE)], &part),
            (&[range, ("if-range", weak)], &whole),
            (&[range, ("if-range", LATER)], &whole),
            (&[("range", "bytes=10-"), ("if-range", "\"a\"")], &whole),
        ];
        for (lines, expected) in cases {
            assert_eq!(conditions(lines).judge(&file(UNSETTLED)), *expected, "{lines:?}");
        }
        // A weak validator does not vouch for bytes.
        for validator in [TAG, weak, DATE] {
            let fresh = file(Duration::ZERO);
            assert_eq!(conditions(&[range, ("if-range", validator)]).judge(&fresh), whole);
        }
        assert_eq!(
            conditions(&[("if-match", TAG)]).judge(&file(Duration::ZERO)),
            PreconditionFailed
        );
        assert_eq!(conditions(&[("if-none-match", TAG)]).judge(&file(Duration::ZERO)), NotModified);
    }

    #[test]
    fn the_range_of_a_head_is_ignored() {
        let mut headers = http::HeaderMap::new();
        headers.insert("range", "bytes=0-0".parse().unwrap());
        let of_head = Conditions::of(&headers, false);
        assert_eq!(of_head.judge(&file(UNSETTLED)), Verdict::Send(Range::Whole));
    }
}
