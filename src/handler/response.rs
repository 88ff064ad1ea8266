//! The values that a handler may return, and what becomes of them.

use std::borrow::Cow;

use serde::Serialize;
use tide::{Body, Response, StatusCode};

use super::error_response;
use crate::proto::handshake::is_header_line;
use crate::reject::HandlerError;
use crate::upgrade::{Field, Switched};

/// The value that a handler has returned. Most of them need no response of tide, which takes several allocations.
#[doc(hidden)]
#[expect(
    unnameable_types,
    reason = "it is in the hidden methods of traits that applications only name"
)]
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub enum Reply {
    /// The prepared response as it is.
    Prepared,
    /// The prepared response with this body.
    Text(Cow<'static, str>),
    /// The prepared response with this body.
    Bytes(Vec<u8>),
    /// The value makes the response of the prepared one.
    Other(Box<dyn FnOnce(Response) -> Response + Send>),
}

impl Reply {
    fn of(value: impl IntoResponse) -> Self {
        Self::Other(Box::new(move |prepared| value.into_response(prepared)))
    }

    /// The answer, made from the prepared response if there is one.
    pub(super) fn over(self, prepared: Option<Response>) -> Answer {
        match (self, prepared) {
            (Self::Prepared, None) => Answer::Empty,
            (Self::Text(text), None) => Answer::Text(text),
            (Self::Bytes(bytes), None) => Answer::Bytes(bytes),
            (reply, prepared) => {
                let prepared = prepared.unwrap_or_else(|| Response::new(StatusCode::Ok));
                Answer::Response(match reply {
                    Self::Prepared => prepared,
                    Self::Text(Cow::Borrowed(text)) => text.into_response(prepared),
                    Self::Text(Cow::Owned(text)) => text.into_response(prepared),
                    Self::Bytes(bytes) => bytes.into_response(prepared),
                    Self::Other(make) => make(prepared),
                })
            }
        }
    }
}

/// The answer of a handler.
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved twice, which costs less than a box for each response of tide"
)]
pub(crate) enum Answer {
    /// 200 without a body.
    Empty,
    /// 200 with this text.
    Text(Cow<'static, str>),
    /// 200 with these bytes.
    Bytes(Vec<u8>),
    /// 101 with these fields.
    Switching(Vec<Field>),
    /// Any other.
    Response(Response),
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        let reply = match answer {
            Answer::Response(response) => return response,
            Answer::Switching(fields) => return Switched::Plain(fields).into(),
            Answer::Empty => return Self::new(StatusCode::Ok),
            Answer::Text(Cow::Borrowed(text)) => Body::from(text),
            Answer::Text(Cow::Owned(text)) => Body::from(text),
            Answer::Bytes(bytes) => Body::from(bytes),
        };
        reply.into_response(Self::new(StatusCode::Ok))
    }
}

/// A value that a handler may return in `Ok`, when it answers with HTTP.
///
/// After an upgrade the value is dropped: the 101 was the answer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no response",
    note = "a value of yours is answered as JSON by `tidewire::server::Json(value)`"
)]
pub trait IntoResponse: Send + 'static {
    /// Makes the response from the one prepared in [`RequestContext::response`](crate::RequestContext::response).
    fn into_response(self, prepared: Response) -> Response;

    #[doc(hidden)]
    fn into_reply(self) -> Reply
    where
        Self: Sized,
    {
        Reply::of(self)
    }
}

/// The prepared response as it is: 200 without a body, unless the handler has changed it.
impl IntoResponse for () {
    fn into_response(self, prepared: Response) -> Response {
        prepared
    }

    fn into_reply(self) -> Reply {
        Reply::Prepared
    }
}

/// Replaces the prepared response.
impl IntoResponse for Response {
    fn into_response(self, _prepared: Response) -> Response {
        self
    }
}

/// Sets the status.
impl IntoResponse for StatusCode {
    fn into_response(self, mut prepared: Response) -> Response {
        prepared.set_status(self);
        prepared
    }
}

/// Sets the body, with its media type.
impl IntoResponse for Body {
    fn into_response(self, mut prepared: Response) -> Response {
        prepared.set_body(self);
        prepared
    }
}

/// Sets the body: `text/plain`.
impl IntoResponse for &'static str {
    fn into_response(self, prepared: Response) -> Response {
        Body::from(self).into_response(prepared)
    }

    fn into_reply(self) -> Reply {
        Reply::Text(Cow::Borrowed(self))
    }
}

/// Sets the body: `text/plain`.
impl IntoResponse for String {
    fn into_response(self, prepared: Response) -> Response {
        Body::from(self).into_response(prepared)
    }

    fn into_reply(self) -> Reply {
        Reply::Text(Cow::Owned(self))
    }
}

/// Sets the body: `application/octet-stream`.
impl IntoResponse for Vec<u8> {
    fn into_response(self, prepared: Response) -> Response {
        Body::from(self).into_response(prepared)
    }

    fn into_reply(self) -> Reply {
        Reply::Bytes(self)
    }
}

/// Sets the body: `application/json`.
impl IntoResponse for serde_json::Value {
    fn into_response(self, prepared: Response) -> Response {
        Body::from(self).into_response(prepared)
    }
}

/// Sets the body: `application/json`. A value that cannot be written as JSON is a 500.
///
/// ```
/// use serde::Serialize;
/// use tidewire::server::Json;
/// use tidewire::{RequestContext, Server};
///
/// #[derive(Serialize)]
/// struct Lot {
///     id: u32,
/// }
///
/// let mut server = Server::new();
/// server.get("/lots/first", |_: RequestContext| async { Ok(Json(Lot { id: 1 })) });
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Json<T>(pub T);

impl<T: Serialize + Send + 'static> IntoResponse for Json<T> {
    fn into_response(self, prepared: Response) -> Response {
        match Body::from_json(&self.0) {
            Ok(body) => body.into_response(prepared),
            Err(error) => error_response(HandlerError::from_tide(error)),
        }
    }
}

/// The value's response with this status.
///
/// ```
/// use tidewire::server::Json;
/// use tidewire::tide::StatusCode;
/// use tidewire::{RequestContext, Server};
///
/// let mut server = Server::new();
/// server.post("/lots", |_: RequestContext| async { Ok((StatusCode::Created, Json([1, 2]))) });
/// ```
impl<R: IntoResponse> IntoResponse for (StatusCode, R) {
    fn into_response(self, prepared: Response) -> Response {
        let mut response = self.1.into_response(prepared);
        response.set_status(self.0);
        response
    }
}

/// The value's response with these header lines, in place of those of the same names. A line that HTTP does not allow
/// (RFC 9110 §5.5) makes it a 500, since it may be one that protects something.
///
/// ```
/// use tidewire::{RequestContext, Server};
///
/// let mut server = Server::new();
/// server.get("/style.css", |_: RequestContext| async {
///     Ok(([("content-type", "text/css"), ("cache-control", "max-age=60")], "body {}"))
/// });
/// ```
impl<V, R, const N: usize> IntoResponse for ([(&'static str, V); N], R)
where
    V: AsRef<str> + Send + 'static,
    R: IntoResponse,
{
    fn into_response(self, prepared: Response) -> Response {
        let (lines, value) = self;
        let mut response = value.into_response(prepared);
        for (name, value) in &lines {
            if !is_header_line(name, value.as_ref()) {
                let text = format!("HTTP does not allow this header: {name:?}");
                return error_response(HandlerError::boxed(text.into()));
            }
            response.insert_header(*name, value.as_ref());
        }
        response
    }
}

/// The value's response, or 404 without a body for `None`.
///
/// ```
/// use tidewire::{RequestContext, Server};
///
/// let mut server = Server::new();
/// server.get("/lots/:id", |ctx: RequestContext| async move {
///     Ok((ctx.param::<u32>("id")? == 1).then_some("a lamp"))
/// });
/// ```
impl<R: IntoResponse> IntoResponse for Option<R> {
    fn into_response(self, mut prepared: Response) -> Response {
        let Some(value) = self else {
            prepared.set_status(StatusCode::NotFound);
            return prepared;
        };
        value.into_response(prepared)
    }

    fn into_reply(self) -> Reply {
        match self {
            Some(value) => value.into_reply(),
            None => Reply::of(None::<R>),
        }
    }
}
