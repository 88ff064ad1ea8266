//! The records of requests that are answered with an error, and of handlers that end their connection with one.
//!
//! | what has happened | level |
//! | --- | --- |
//! | a handler has panicked | error |
//! | the application has failed: 5xx, or 1011 | warn |
//! | the client is refused: 4xx, a limit of the server, a close code of the application | debug |
//!
//! An error that the peer of the connection has made is no failure of the application, and neither is a
//! [`Reject`](super::Reject) of another status or code. No record shows the text of a refusal, unless that is a part of the
//! program: it may quote a query or a header, which may have a secret.

#[cfg(feature = "server")]
use std::fmt;
use std::net::SocketAddr;

#[cfg(feature = "server")]
use super::{HandlerError, status_name};
use super::{Refused, Verdict};
use crate::escaped::{Escaped, EscapedText};
use crate::foreign::PanicText;
use crate::records::record;

/// What a record is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) method: Option<&'a str>,
    /// Without the query.
    pub(crate) path: Option<&'a str>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) connection: Option<u64>,
}

/// Writes a record of the target `tidewire::handler` with the fields of a [`Subject`], and others.
macro_rules! told {
    ($level:ident, $message:literal, $subject:expr $(, $name:ident = $value:expr)* $(,)?) => {{
        let Subject { method, path, peer, connection } = $subject;
        record!(
            target: "tidewire::handler",
            $level,
            $message,
            method = method.map(Escaped),
            path = path.map(Escaped),
            peer = peer,
            connection = connection
            $(, $name = $value)*
        );
    }};
}

/// The reason why a request is answered with an error.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) enum Reason {
    /// The application has failed, with this error.
    Failed(EscapedText),
    Panicked(PanicText),
    Refused(Refused),
    /// A record has told it already.
    Told,
}

#[cfg(feature = "server")]
impl Reason {
    /// The reason for the error of a handler, which is answered with `status`.
    pub(crate) fn of(error: &HandlerError, status: u16) -> Self {
        match error.handshake() {
            Some(handshake) if handshake.is_failure_of_ours() => Self::failed(&handshake),
            Some(handshake) => Self::Refused(Refused::named(handshake.name())),
            None if status >= 500 => Self::failed(error),
            None => {
                let reject = error.reject();
                let named = || Refused::named(status_name(status));
                Self::Refused(reject.map_or_else(named, |reject| reject.refused()))
            }
        }
    }

    pub(crate) fn failed(error: &dyn fmt::Display) -> Self {
        Self::Failed(Escaped(error).to_text())
    }
}

/// Tells of a request that is answered with `status`, from 400 on.
#[cfg(feature = "server")]
pub(crate) fn tell_answer(subject: Subject<'_>, status: u16, reason: Option<Reason>) {
    match reason {
        Some(Reason::Told) => {}
        Some(Reason::Panicked(text)) => {
            let hint = hint(&text);
            told!(error, "handler panicked", subject, status = status, hint = hint, error = text.0);
        }
        Some(Reason::Failed(error)) if status >= 500 => {
            told!(warn, "handler failed", subject, status = status, error = error);
        }
        Some(Reason::Refused(Refused { name, text })) => {
            let text = text.map(Escaped);
            told!(debug, "request refused", subject, status = status, reason = name, text = text);
        }
        // A response of the application that is no error of it.
        None if status >= 500 => {
            told!(warn, "handler failed", subject, status = status, reason = status_name(status));
        }
        None | Some(Reason::Failed(_)) => {
            told!(debug, "request refused", subject, status = status, reason = status_name(status));
        }
    }
}

/// Tells that the body of a response cannot be read to its end.
#[cfg(feature = "server")]
pub(crate) fn tell_body(subject: Subject<'_>, failure: Result<&dyn fmt::Display, PanicText>) {
    match failure {
        Ok(error) => {
            told!(warn, "the body of a response failed", subject, error = Escaped(error));
        }
        Err(panic) => told!(error, "the body of a response panicked", subject, error = panic.0),
    }
}

/// Tells of a handler that has ended its WebSocket connection with `error`. `is_over` says whether the connection had
/// ended before, so that an error of it is one of the peer.
pub(crate) fn tell_end(subject: Subject<'_>, verdict: &Verdict, is_over: bool, error: EscapedText) {
    const INTERNAL: u16 = 1011;

    let code = verdict.frame.as_ref().map_or(INTERNAL, |frame| frame.code().into());
    match verdict.refused {
        Some(Refused { name, text }) if code != INTERNAL => {
            let (text, error) = (text.map(Escaped), verdict.is_of_message.then_some(error));
            told!(
                debug,
                "WebSocket handler closes its connection",
                subject,
                code = code,
                reason = name,
                text = text,
                error = error
            );
        }
        _ if verdict.is_returned || (verdict.is_of_connection && is_over) => {
            told!(debug, "WebSocket handler ends with its connection", subject, error = error);
        }
        _ => told!(warn, "WebSocket handler failed", subject, code = code, error = error),
    }
}

/// Tells of a handler of a WebSocket connection that has panicked.
pub(crate) fn tell_panic(subject: Subject<'_>, panic: &PanicText) {
    told!(error, "WebSocket handler panicked", subject, hint = hint(panic), error = panic.0);
}

/// What helps against a panic that many programs have on their first day.
fn hint(panic: &PanicText) -> Option<&'static str> {
    let is_of_tokio = panic.0.as_ref().is_some_and(|text| text.contains("context of a Tokio"));
    is_of_tokio.then_some(
        "a library on tokio needs its runtime: turn on tidewire's feature `tokio`, and start the server inside the runtime or \
         name it by ServerOptions::tokio",
    )
}
