//! The body of a request, collected: with a limit on its size, and on its time.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::AsyncReadExt;
use futures::future::{Either, select};
use serde::de::DeserializeOwned;
use tide::StatusCode;

use super::RequestContext;
use crate::runtime::{self, Timer};

/// What `ctx.body_bytes` and its siblings collect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Longest body, in bytes.
    pub(crate) max_size: usize,
    /// Longest time from the call to the last byte.
    pub(crate) deadline: Option<Duration>,
}

/// Those that hold outside of our own server.
impl Default for BodyLimits {
    fn default() -> Self {
        Self { max_size: 1 << 20, deadline: Some(Duration::from_secs(60)) }
    }
}

impl<State: Clone + Send + Sync + 'static> RequestContext<State> {
    /// Reads the whole body.
    ///
    /// # Errors
    ///
    /// A 413 if it exceeds [`max_body_size`](crate::ServerOptions::max_body_size), 1 MiB by
    /// default; a 400 if it ends early; a 408 if it stops coming for
    /// [`body_timeout`](crate::ServerOptions::body_timeout), or is not complete within
    /// [`body_deadline`](crate::ServerOptions::body_deadline), 60 s by default.
    pub async fn body_bytes(&mut self) -> tide::Result<Vec<u8>> {
        let limits = self.request.ext::<BodyLimits>().copied().unwrap_or_default();
        let Some(deadline) = limits.deadline else { return self.collect_body(limits).await };
        let deadline = Timer::at(runtime::after(deadline));
        match select(pin!(self.collect_body(limits)), deadline).await {
            Either::Left((body, _)) => body,
            Either::Right(_) => Err(tide::Error::from_str(
                StatusCode::RequestTimeout,
                "the body was not complete in time",
            )),
        }
    }

    async fn collect_body(&mut self, limits: BodyLimits) -> tide::Result<Vec<u8>> {
        let max = limits.max_size;
        let too_large = || {
            let text = format!("the body exceeds {max} bytes");
            tide::Error::from_str(StatusCode::PayloadTooLarge, text)
        };
        if self.request.len().is_some_and(|len| len > max) {
            return Err(too_large());
        }
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        let mut body = Vec::new();
        self.request.take_body().take(limit).read_to_end(&mut body).await.map_err(|error| {
            match error.kind() {
                io::ErrorKind::TimedOut => tide::Error::new(StatusCode::RequestTimeout, error),
                _ => tide::Error::new(StatusCode::BadRequest, error),
            }
        })?;
        if body.len() > max { Err(too_large()) } else { Ok(body) }
    }

    /// Reads the whole body as text.
    ///
    /// # Errors
    ///
    /// A 400 if it is not UTF-8. Else as [`body_bytes`](Self::body_bytes).
    pub async fn body_string(&mut self) -> tide::Result<String> {
        let body = self.body_bytes().await?;
        String::from_utf8(body).map_err(|error| tide::Error::new(StatusCode::BadRequest, error))
    }

    /// Reads the whole body as JSON.
    ///
    /// # Errors
    ///
    /// A 400 if it is not JSON, or not of this shape. Else as [`body_bytes`](Self::body_bytes).
    pub async fn body_json<T: DeserializeOwned>(&mut self) -> tide::Result<T> {
        let body = self.body_bytes().await?;
        serde_json::from_slice(&body)
            .map_err(|error| tide::Error::new(StatusCode::BadRequest, error))
    }
}
