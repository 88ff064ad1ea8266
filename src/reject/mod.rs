//! The answer that an error carries: a status before the upgrade, a close frame after it.
//!
//! A handler's error goes up by `?`, and may be wrapped by other errors. The first [`Reject`] among it and its causes
//! decides. Without one, an error of the peer's data has an answer of its own, and any other error is ours: 500, or 1011.
//!
//! `handler_error` is the error of a server's handlers, and `told` what the log says of all of this.

#[cfg(any(feature = "server", feature = "axum"))]
mod handler_error;
mod told;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

#[cfg(feature = "server")]
pub(crate) use self::handler_error::SharedJudge;
#[cfg(any(feature = "server", feature = "axum"))]
pub use self::handler_error::{HandlerError, HandlerResult};
#[cfg(feature = "server")]
pub(crate) use self::told::{Reason, tell_answer, tell_body};
pub(crate) use self::told::{Subject, tell_end, tell_panic};
use crate::error::Error;
use crate::proto::{CloseCode, CloseFrame};

/// An error that says how the client is told: with a status and a text before the upgrade, with a close code and a
/// reason after it.
///
/// A handler returns it with `?` or `into()`, by itself or as the [source](StdError::source) of an error of the
/// application. It is what the client did wrong, or may not do, so it is no failure of the application in the log, but for
/// a status of 5xx, and the close code 1011. The log has its text only if that is a part of the program, as `"no such lot"` is,
/// and not if it was made by `format!`: it might quote a secret.
///
/// | made by | before the upgrade | after it |
/// | --- | --- | --- |
/// | [`status`](Self::status) of 4xx | that status | 1008 |
/// | [`status`](Self::status) of 503 | that status | 1013 |
/// | [`status`](Self::status) of 5xx | that status | 1011 |
/// | [`close`](Self::close) with 1003, 1007 | 400 | that code |
/// | [`close`](Self::close) with 1009 | 413 | that code |
/// | [`close`](Self::close) with 1001, 1012, 1013 | 503 | that code |
/// | [`close`](Self::close) with 1002, 1010 | 400 | that code |
/// | [`close`](Self::close) with 1011, 1014 | 500, 502 | that code |
/// | [`close`](Self::close) with 4400 to 4599 | 400 to 599 | that code |
/// | [`close`](Self::close) with any other | 403 | that code |
///
/// The text is the body (`text/plain`), and the reason of the close frame as far as it has room: 123 bytes.
///
/// ```
/// # #[cfg(feature = "server")] {
/// use tidewire::{Reject, RequestContext, Server, WebSocketOptions};
///
/// let mut server = Server::new();
/// server.get("/lots/:id", |mut ctx: RequestContext| async move {
///     if ctx.header("authorization").is_none() {
///         return Err(Reject::status(401, "log in first").header("www-authenticate", "Bearer").into());
///     }
///     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
///     while let Some(message) = ws.recv().await? {
///         if message.as_bytes().is_empty() {
///             return Err(Reject::close(4003, "kicked").into());
///         }
///     }
///     Ok(())
/// });
/// # }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reject(Box<Answer>);

#[derive(Clone, Debug)]
struct Answer {
    /// For the log.
    name: &'static str,
    status: u16,
    text: Cow<'static, str>,
    code: CloseCode,
    fields: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

impl Reject {
    /// A refusal with this status, from 400 to 599, and this text. Any other status is replaced by 500.
    #[must_use]
    pub fn status(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let status = if (400..600).contains(&status) { status } else { 500 };
        let code = match status {
            400..500 => CloseCode::POLICY_VIOLATION,
            503 => CloseCode::TRY_AGAIN_LATER,
            _ => CloseCode::INTERNAL_ERROR,
        };
        Self::new(status, code, text.into())
    }

    /// A refusal with this close code and this reason. A code that may not be sent (RFC 6455 §7.4) is replaced by 1011.
    #[must_use]
    pub fn close(code: impl TryInto<CloseCode>, reason: impl Into<Cow<'static, str>>) -> Self {
        let code = code.try_into().ok().filter(|code| CloseFrame::new(*code, "").is_ok());
        let code = code.unwrap_or(CloseCode::INTERNAL_ERROR);
        let status = match u16::from(code) {
            1002 | 1003 | 1007 | 1010 => 400,
            1009 => 413,
            1001 | 1012 | 1013 => 503,
            1011 => 500,
            1014 => 502,
            code @ 4400..4600 => code - 4000,
            _ => 403,
        };
        Self::new(status, code, reason.into())
    }

    fn new(status: u16, code: CloseCode, text: Cow<'static, str>) -> Self {
        let name = status_name(status);
        Self(Box::new(Answer { name, status, text, code, fields: Vec::new() }))
    }

    /// Has the log name the reason, which is not a part of what the client is told.
    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.0.name = name;
        self
    }

    /// What the log may say of it.
    pub(crate) fn refused(&self) -> Refused {
        let text = match self.0.text {
            Cow::Borrowed(text) if !text.is_empty() => Some(text),
            _ => None,
        };
        Refused { name: self.0.name, text }
    }

    /// Adds a header line to the response. A line that HTTP does not allow (RFC 9110 §5) is left out.
    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.0.fields.push((name.into(), value.into()));
        self
    }

    /// The status of the response.
    #[must_use]
    pub fn status_code(&self) -> u16 {
        self.0.status
    }

    /// What the client is told.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The close frame. A reason that is too long for it is cut.
    #[must_use]
    pub fn close_frame(&self) -> CloseFrame {
        CloseFrame::lossy(self.0.code, &self.0.text)
    }

    /// The header lines of the response.
    #[cfg(feature = "server")]
    pub(crate) fn fields(&self) -> &[(Cow<'static, str>, Cow<'static, str>)] {
        &self.0.fields
    }
}

/// Equal rejections tell the client the same.
impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        let Self { name: _, status, text, code, fields } = self;
        (*status, *code) == (other.status, other.code)
            && *text == other.text
            && *fields == other.fields
    }
}

impl Eq for Answer {}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl StdError for Reject {}

/// What the log may say of a refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) name: &'static str,
    /// The text, if it is a part of the program.
    pub(crate) text: Option<&'static str>,
}

impl Refused {
    #[cfg(feature = "server")]
    pub(crate) fn named(name: &'static str) -> Self {
        Self { name, text: None }
    }
}

/// The name of a status for the log.
pub(crate) fn status_name(status: u16) -> &'static str {
    match status {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        406 => "not_acceptable",
        408 => "request_timeout",
        409 => "conflict",
        410 => "gone",
        411 => "length_required",
        412 => "precondition_failed",
        413 => "content_too_large",
        415 => "unsupported_media_type",
        416 => "range_not_satisfiable",
        422 => "unprocessable_content",
        426 => "upgrade_required",
        429 => "too_many_requests",
        500 => "internal_error",
        501 => "not_implemented",
        502 => "bad_gateway",
        503 => "unavailable",
        504 => "gateway_timeout",
        505.. => "server_error",
        _ => "client_error",
    }
}

/// An error that the caller of a function gets: the log need not tell it loudly.
#[cfg(feature = "client")]
#[derive(Debug)]
pub(crate) struct Returned(pub(crate) String);

#[cfg(feature = "client")]
impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What follows from the error of a handler.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The close frame; `None` for a failure of ours.
    pub(crate) frame: Option<CloseFrame>,
    pub(crate) refused: Option<Refused>,
    /// Whether the peer's message is refused, with the error of its parser.
    pub(crate) is_of_message: bool,
    /// Whether the error, or one of its causes, is one that a connection fails with.
    pub(crate) is_of_connection: bool,
    /// Whether somebody else gets the error.
    pub(crate) is_returned: bool,
}

type Dyn = dyn StdError + 'static;

fn chain(error: &Dyn) -> impl Iterator<Item = &Dyn> {
    std::iter::successors(Some(error), |error: &&Dyn| (*error).source())
}

/// The answer of an error: what its first [`Reject`] says, or what its own kind does; `None` for a failure of ours.
pub(crate) fn of_error(error: &Dyn) -> Option<Reject> {
    let said = chain(error).find_map(|error| error.downcast_ref::<Reject>()).cloned();
    said.or_else(|| of_message(error))
}

/// The answer to an error that is the peer's message.
fn of_message(error: &Dyn) -> Option<Reject> {
    let invalid = |text| Reject::close(CloseCode::INVALID_PAYLOAD, text);
    chain(error).find_map(|error| match error.downcast_ref()? {
        Error::Json(error) => Some(invalid(error.to_string()).named("json_invalid")),
        Error::Decode(error) => Some(invalid(error.to_string()).named("message_invalid")),
        _ => None,
    })
}

/// Whether a connection fails with this error.
fn is_of_connection(error: &Dyn) -> bool {
    chain(error).filter_map(|error| error.downcast_ref()).any(|error| match error {
        Error::Handshake(error) => !error.is_failure_of_ours(),
        Error::Protocol(_)
        | Error::Timeout(_)
        | Error::Overloaded
        | Error::Closed
        | Error::Io(_) => true,
        _ => false,
    })
}

/// What follows from a handler's error, of whatever type.
pub(crate) fn verdict(error: &dyn Any) -> Verdict {
    #[cfg(feature = "client")]
    if error.is::<Returned>() {
        return Verdict { is_returned: true, ..Verdict::default() };
    }
    #[cfg(any(feature = "server", feature = "axum"))]
    if let Some(error) = error.downcast_ref::<HandlerError>() {
        return Verdict::of(error.reject().as_ref(), error.as_error());
    }
    let boxed = || error.downcast_ref::<Box<dyn StdError + Send + Sync>>();
    let error: &Dyn = if let Some(error) = error.downcast_ref::<Error>() {
        error
    } else if let Some(error) = error.downcast_ref::<Reject>() {
        error
    } else if let Some(error) = boxed() {
        &**error
    } else {
        return Verdict::default();
    };
    Verdict::of(of_error(error).as_ref(), error)
}

impl Verdict {
    fn of(reject: Option<&Reject>, error: &Dyn) -> Self {
        Self {
            frame: reject.map(Reject::close_frame),
            // A `Reject` of the application goes before it.
            is_of_message: reject.is_some() && reject == of_message(error).as_ref(),
            refused: reject.map(Reject::refused),
            is_of_connection: is_of_connection(error),
            is_returned: false,
        }
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use std::io;

    use super::*;
    use crate::HandshakeError;

    #[test]
    fn an_error_is_one_of_its_connection_through_its_causes_and_one_that_is_returned_is_none() {
        let of_connection = |error: &dyn Any| verdict(error).is_of_connection;
        assert!(of_connection(&Error::Closed));
        let boxed: Box<dyn StdError + Send + Sync> = Error::Overloaded.into();
        assert!(of_connection(&boxed));
        // The application's own.
        assert!(!of_connection(&io::Error::other("no database")));
        assert!(!of_connection(&Error::Handshake(HandshakeError::LimitIsZero)));
        assert!(of_connection(&Error::Handshake(HandshakeError::Abandoned)));
        assert!(verdict(&Returned("said elsewhere".to_owned())).is_returned);
    }

    #[test]
    fn a_text_is_for_the_log_only_if_it_is_a_part_of_the_program() {
        assert_eq!(Reject::status(404, "no such lot").refused().text, Some("no such lot"));
        assert_eq!(Reject::status(404, "no such lot".to_owned()).refused().text, None);
        assert_eq!(Reject::status(404, "").refused().text, None);
        let named = Reject::status(400, "x").named("query_invalid");
        assert_eq!(named.refused().name, "query_invalid");
        assert_eq!(named, Reject::status(400, "x"), "the client is told the same");
    }
}
