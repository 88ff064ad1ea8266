//! The causes of an error, in one line of text.
//!
//! The `Display` text of an error names one fact, and leaves its cause to `source()`. A log record, a close
//! frame or a failed test has room for one text only, so there the causes follow.

use std::error::Error;
use std::fmt;

/// Appends the causes of `error` to its own text, if `f` has the alternate flag: `{:#}`.
pub(crate) fn append(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if f.alternate() { write_causes(error, f) } else { Ok(()) }
}

/// An error of another crate, with its causes. The alternate flag means nothing to such an error.
#[cfg(feature = "server")]
pub(crate) struct WithCauses<'a>(pub(crate) &'a (dyn Error + Send + Sync));

#[cfg(feature = "server")]
impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        write_causes(self.0, f)
    }
}

fn write_causes(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut next = error.source();
    while let Some(cause) = next {
        write!(f, ": {cause}")?;
        next = cause.source();
    }
    Ok(())
}

/// Checks that no text of an error or of its causes contains the text of the cause below it, and that
/// `{:#}` shows each of them. Returns the number of texts.
#[cfg(test)]
pub(crate) fn check_texts(error: &dyn Error) -> usize {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    for (text, cause) in texts.iter().zip(texts.iter().skip(1)) {
        assert!(!text.contains(cause), "{text:?} repeats {cause:?}");
    }
    assert!(texts.iter().all(|text| !text.is_empty()), "{texts:?}");
    assert_eq!(format!("{error:#}"), texts.join(": "));
    texts.len()
}
