//! The error of handlers: any error of the application, and the answer that it has.

use std::error::Error as StdError;
use std::fmt;
#[cfg(feature = "server")]
use std::sync::Arc;

#[cfg(feature = "server")]
use tide::StatusCode;

use super::{Reject, of_error};
#[cfg(feature = "testing")]
use crate::error::Error;
#[cfg(feature = "server")]
use crate::proto::handshake::HandshakeError;
#[cfg(feature = "server")]
use crate::sync::Mutex;

/// The result of a handler.
pub type HandlerResult<T = ()> = Result<T, HandlerError>;

/// The error of a handler: any error, most of them converted by `?`.
///
/// Whatever implements [`std::error::Error`] converts, and so does `anyhow::Error`; errors of this crate, too. Two types do
/// not, because they are no `std` errors: a boxed error has [`boxed`](Self::boxed), and an error of tide has
/// [`from_tide`](Self::from_tide).
///
/// # What the client is told
///
/// Of a handler in axum, only what comes after the upgrade is ours.
///
/// | the error, or one of its causes, is | before the upgrade | after it |
/// | --- | --- | --- |
/// | a [`HandshakeError`] | its own status and text | – |
/// | a [`Reject`] | what it says | what it says |
/// | [`Error::Json`](crate::Error::Json), [`Error::Decode`](crate::Error::Decode) | 400 with the sentence of serde, or of the codec | 1007 with that sentence |
/// | any other | what [`Server::on_error`](crate::Server::on_error) says; else 500 without a body | the same; else 1011 without a reason |
///
/// The text of any other error is for the log alone.
///
/// # What the log is told
///
/// A failure of the application is a record of level warn, with method, path, peer, connection, and the error with its
/// causes: an error of the last line of the table, and a [`Reject`] of 5xx, or of 1011. All others are what the client did,
/// and records of level debug with the name of the reason. So are, after the upgrade, errors of the connection
/// itself, such as [`Error::Io`](crate::Error::Io) and [`Error::Closed`](crate::Error::Closed), once it has ended. A handler that
/// panics is a record of level error with the text of the panic.
///
/// ```
/// # #[cfg(feature = "server")] {
/// use tidewire::{HandlerError, HandlerResult, Reject, RequestContext, Server};
///
/// fn find(id: u32) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
///     # let _ = id;
///     Err("the database is on fire")?
/// }
///
/// async fn lot(ctx: RequestContext) -> HandlerResult<String> {
///     let id = ctx.query::<u32>()?;
///     if id == 0 {
///         return Err(Reject::status(404, "no such lot").into());
///     }
///     find(id).map_err(HandlerError::boxed)
/// }
///
/// let mut server = Server::new();
/// server.get("/lot", lot);
/// # }
/// ```
pub struct HandlerError(anyhow::Error);

impl HandlerError {
    /// Converts a boxed error, which `?` cannot: `.map_err(HandlerError::boxed)?`.
    #[must_use]
    pub fn boxed(error: Box<dyn StdError + Send + Sync>) -> Self {
        Self(anyhow::Error::from_boxed(error))
    }

    /// Converts an error of tide, which `?` cannot: `.map_err(HandlerError::from_tide)?`.
    ///
    /// A status of 4xx is told with the text of the error, one of 5xx without.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn from_tide(error: tide::Error) -> Self {
        let status = error.status().into();
        Self::of_tide(error, super::status_name(status))
    }

    /// As [`from_tide`](Self::from_tide), with a name for the log.
    #[cfg(feature = "server")]
    pub(crate) fn of_tide(error: tide::Error, name: &'static str) -> Self {
        let status = u16::from(error.status());
        let text = error.to_string();
        let error = error.into_inner();
        Self(match status {
            500 => error,
            400..500 => error.context(Reject::status(status, text).named(name)),
            _ => error.context(Reject::status(status, "").named(name)),
        })
    }

    /// The error itself. Its [`source`](StdError::source) is the next cause.
    #[must_use]
    pub fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0
    }

    /// The error, or the first of its causes, that is of this type.
    #[must_use]
    pub fn find<E: StdError + Send + Sync + 'static>(&self) -> Option<&E> {
        // The first asks also for what was attached to an error as its context.
        self.0.downcast_ref().or_else(|| self.0.chain().find_map(|error| error.downcast_ref()))
    }

    /// What the client is told, if the error or one of its causes says so.
    #[must_use]
    pub fn reject(&self) -> Option<Reject> {
        self.find().cloned().or_else(|| of_error(self.as_error()))
    }

    /// The answer of an opening handshake that failed.
    #[cfg(feature = "server")]
    pub(crate) fn handshake(&self) -> Option<HandshakeError> {
        self.find().copied()
    }

    /// Whether it is a failure of the application: no refusal of the client, and no loss or fault of its connection.
    /// `is_open` says whether that goes on, so that an error of a connection is one of another.
    #[cfg(feature = "testing")]
    pub(crate) fn is_failure(&self, is_open: bool) -> bool {
        if self.handshake().is_some() {
            return false;
        }
        if let Some(reject) = self.reject() {
            // 503 is a refusal, too: come back later.
            return reject.status_code() >= 500 && reject.status_code() != 503;
        }
        let is_of_peer = !is_open
            && self.find().is_some_and(|error| match error {
                Error::Protocol(_) | Error::Timeout(_) | Error::Overloaded => true,
                error => error.is_closed(),
            });
        !is_of_peer
    }

    /// The error for middleware, which finds it in the response.
    #[cfg(feature = "server")]
    pub(crate) fn into_tide(self, status: StatusCode) -> tide::Error {
        tide::Error::new(status, self.0)
    }
}

/// What an application says of its own errors.
#[cfg(feature = "server")]
type Judge = dyn Fn(&HandlerError) -> Option<Reject> + Send + Sync;

/// The judge of a server, which its handlers share: [`Server::on_error`](crate::Server::on_error).
#[cfg(feature = "server")]
#[doc(hidden)]
#[expect(
    unnameable_types,
    reason = "it is in the hidden methods of traits that applications only name"
)]
#[expect(missing_debug_implementations, reason = "a closure has none")]
#[derive(Clone, Default)]
pub struct SharedJudge(Arc<Mutex<Option<Arc<Judge>>>>);

#[cfg(feature = "server")]
impl SharedJudge {
    pub(crate) fn set(
        &self,
        judge: impl Fn(&HandlerError) -> Option<Reject> + Send + Sync + 'static,
    ) {
        let replaced = self.0.lock().replace(Arc::new(judge));
        // Without the lock: it is the application's.
        drop(replaced);
    }

    /// Adds the answer that the application has for an error, if that has none of its own.
    pub(crate) fn judge(&self, error: HandlerError) -> HandlerError {
        if error.handshake().is_some() || error.reject().is_some() {
            return error;
        }
        let judge = self.0.lock().clone();
        match judge.and_then(|judge| judge(&error)) {
            Some(reject) => HandlerError(error.0.context(reject)),
            None => error,
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// The error alone; with the alternate flag, `{:#}`, its causes as well.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
