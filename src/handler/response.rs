//! The values that a handler may return, and what becomes of them.

use std::borrow::Cow;

use tide::{Body, Response, StatusCode};

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
pub trait IntoResponse: Send + 'static {
    /// Makes the response from the one prepared in [`RequestContext::response`].
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
