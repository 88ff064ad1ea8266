//! The answer that an error carries: a status before the upgrade, a close frame after it.
//!
//! A handler's error goes up by `?`, and may be wrapped by other errors. The first [`Reject`] among it and its causes
//! decides. Without one, an error of the peer's data has an answer of its own, and any other error is ours: 500, or 1011.
//!
//! `handler_error` is the error of a server's handlers.

#[cfg(any(feature = "server", feature = "axum"))]
mod handler_error;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

#[cfg(feature = "server")]
pub(crate) use self::handler_error::SharedJudge;
#[cfg(any(feature = "server", feature = "axum"))]
pub use self::handler_error::{HandlerError, HandlerResult};
use crate::error::Error;
use crate::proto::{CloseCode, CloseFrame};

/// An error that says how the client is told: with a status and a text before the upgrade, with a close code and a
/// reason after it.
///
/// A handler returns it with `?` or `into()`, by itself or as the [source](StdError::source) of an error of the
/// application. It is what the client did wrong, or may not do, so it is no failure of the application in the log.
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

#[derive(Clone, Debug, Eq, PartialEq)]
struct Answer {
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
        Self(Box::new(Answer { status, text, code, fields: Vec::new() }))
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

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl StdError for Reject {}

/// The answer of an error: what its first [`Reject`] says, or what its own kind does; `None` for a failure of ours.
pub(crate) fn of_error(error: &(dyn StdError + 'static)) -> Option<Reject> {
    let chain = || {
        std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source())
    };
    let said = chain().find_map(|error| error.downcast_ref::<Reject>()).cloned();
    said.or_else(|| chain().find_map(|error| of_peer(error.downcast_ref::<Error>()?)))
}

/// The answer to an error that the peer has made.
fn of_peer(error: &Error) -> Option<Reject> {
    match error {
        Error::Json(error) => Some(Reject::close(CloseCode::INVALID_PAYLOAD, error.to_string())),
        Error::Decode(error) => Some(Reject::close(CloseCode::INVALID_PAYLOAD, error.to_string())),
        _ => None,
    }
}

/// The close frame for a handler's error, of whatever type; `None` for a failure of ours.
pub(crate) fn close_frame(error: &dyn Any) -> Option<CloseFrame> {
    #[cfg(any(feature = "server", feature = "axum"))]
    if let Some(error) = error.downcast_ref::<HandlerError>() {
        return error.reject().map(|reject| reject.close_frame());
    }
    let boxed = || error.downcast_ref::<Box<dyn StdError + Send + Sync>>();
    let error: &(dyn StdError + 'static) = if let Some(error) = error.downcast_ref::<Error>() {
        error
    } else if let Some(error) = error.downcast_ref::<Reject>() {
        error
    } else {
        &**boxed()?
    };
    of_error(error).map(|reject| reject.close_frame())
}
