//! The body of a request: its limits, and the code that collects it, in a limited time.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{fmt, io};

use futures::AsyncReadExt;
use serde::de::DeserializeOwned;
use tide::http::Request;

use super::RequestContext;
use crate::error::Error;
use crate::reject::{HandlerError, HandlerResult, Reject};
use crate::runtime::Clock;

/// The limits of a request body.
#[derive(Clone, Debug)]
pub(crate) struct BodyLimits {
    /// Longest body, in bytes. Shared with the body, whichever way it is read.
    max_size: Arc<AtomicUsize>,
    /// Longest time from the call to the last byte, where it is collected.
    deadline: Option<Duration>,
    /// The clock of its deadlines.
    pub(crate) clock: Clock,
}

impl BodyLimits {
    pub(crate) fn new(max_size: usize, deadline: Option<Duration>, clock: &Clock) -> Self {
        let max_size = Arc::new(AtomicUsize::new(max_size));
        Self { max_size, deadline, clock: clock.clone() }
    }

    pub(crate) fn max_size(&self) -> usize {
        self.max_size.load(Relaxed)
    }

    /// Replaces the limit of one request; `None` lifts it.
    pub(crate) fn replace(request: &mut Request, max_size: Option<usize>) {
        if request.ext().get::<Self>().is_none() {
            request.ext_mut().insert(Self::default());
        }
        if let Some(limits) = request.ext().get::<Self>() {
            limits.max_size.store(max_size.unwrap_or(usize::MAX), Relaxed);
        }
    }
}

/// Those that hold outside of our own server, and there where the body is collected.
impl Default for BodyLimits {
    fn default() -> Self {
        Self::new(1 << 20, Some(Duration::from_secs(60)), &Clock::default())
    }
}

/// A body is larger than it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyTooLarge {
    /// The limit, in bytes.
    pub(crate) max: usize,
}

impl fmt::Display for BodyTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body exceeds {} bytes", self.max)
    }
}

impl std::error::Error for BodyTooLarge {}

impl From<BodyTooLarge> for io::Error {
    fn from(error: BodyTooLarge) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, error)
    }
}

impl<State: Clone + Send + Sync + 'static> RequestContext<State> {
    /// Replaces [`max_body_size`](crate::server::ServerOptions::max_body_size) for this request: in bytes, `None`
    /// for no limit.
    ///
    /// Call it before the body is read. For all endpoints of a route there is
    /// [`Route::max_body_size`](crate::server::Route::max_body_size).
    ///
    /// ```
    /// # use tidewire::{RequestContext, Server};
    /// # let mut server = Server::new();
    /// server.post("/upload", |mut ctx: RequestContext| async move {
    ///     ctx.set_max_body_size(1 << 30);
    ///     let body = ctx.request_mut().take_body();
    ///     let len = futures::io::copy(body, &mut futures::io::sink()).await?;
    ///     Ok(format!("{len} bytes\n"))
    /// });
    /// ```
    pub fn set_max_body_size(&mut self, max: impl Into<Option<usize>>) {
        BodyLimits::replace(self.request.tide_mut().as_mut(), max.into());
    }

    /// Reads the whole body. It takes as much memory as it has bytes.
    ///
    /// # Errors
    ///
    /// A 413 if it exceeds [`max_body_size`](crate::server::ServerOptions::max_body_size), 1 MiB by
    /// default; a 400 if it ends early; a 408 if it stops coming for
    /// [`body_timeout`](crate::server::ServerOptions::body_timeout), or is not complete within
    /// [`body_deadline`](crate::server::ServerOptions::body_deadline), 60 s by default.
    pub async fn body_bytes(&mut self) -> HandlerResult<Vec<u8>> {
        let limits = self.request.body_limits();
        let max = limits.max_size();
        let body = limits.clock.timeout(limits.deadline, self.collect_body(max)).await;
        body.unwrap_or_else(|| {
            let reject = Reject::status(408, "the body was not complete in time");
            Err(reject.named("body_timed_out").into())
        })
    }

    async fn collect_body(&mut self, max: usize) -> HandlerResult<Vec<u8>> {
        let announced = self.request.body_len();
        if announced.is_some_and(|len| len > max) {
            return Err(read_error(&BodyTooLarge { max }.into()));
        }
        let most = announced.unwrap_or(max);
        let mut stream = self.request.take_body();
        let (mut body, mut len) = (Vec::new(), 0);
        loop {
            if len == body.len() {
                if len == most {
                    break;
                }
                // Twice the bytes that have come, and no more than were announced: an announced length alone
                // costs no memory.
                let room = len.max(MIN_ROOM).min(most - len);
                body.reserve_exact(room);
                body.resize(len + room, 0);
            }
            match stream.read(body.get_mut(len..).unwrap_or_default()).await {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) => return Err(read_error(&error)),
            }
        }
        if announced.is_none() && len == most {
            // Only the end may follow.
            match stream.read(&mut [0]).await {
                Ok(0) => {}
                Ok(_) => return Err(read_error(&BodyTooLarge { max }.into())),
                Err(error) => return Err(read_error(&error)),
            }
        }
        body.truncate(len);
        body.shrink_to_fit();
        Ok(body)
    }

    /// Reads the whole body as text.
    ///
    /// # Errors
    ///
    /// A 400 if it is not UTF-8. Else as [`body_bytes`](Self::body_bytes).
    pub async fn body_string(&mut self) -> HandlerResult<String> {
        let body = self.body_bytes().await?;
        String::from_utf8(body).map_err(|error| {
            let text = format!("the body is not UTF-8: {}", error.utf8_error());
            Reject::status(400, text).named("body_not_utf8").into()
        })
    }

    /// Reads the whole body as JSON.
    ///
    /// # Errors
    ///
    /// A 400 if it is not JSON, or not of this shape. Else as [`body_bytes`](Self::body_bytes).
    pub async fn body_json<T: DeserializeOwned>(&mut self) -> HandlerResult<T> {
        let body = self.body_bytes().await?;
        serde_json::from_slice(&body).map_err(|error| Error::from(error).into())
    }
}

/// Room for a body before its first byte has come, in bytes.
const MIN_ROOM: usize = 4 << 10;

/// The answer to a request whose body cannot be read.
fn read_error(error: &io::Error) -> HandlerError {
    let (status, name) = match error.kind() {
        io::ErrorKind::TimedOut => (408, "body_timed_out"),
        io::ErrorKind::FileTooLarge => (413, "body_too_large"),
        _ => (400, "body_incomplete"),
    };
    Reject::status(status, error.to_string()).named(name).into()
}
