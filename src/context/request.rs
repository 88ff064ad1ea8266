//! The request of a context: as it was read, or as tide's.
//!
//! A request that goes straight to its handler has not been made into one of tide, which takes a parsed URL, two
//! channels, and copies of all header lines. It is when the handler asks for [`RequestContext::request`] or something
//! that only tide has.
//!
//! [`RequestContext::request`]: super::RequestContext::request

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri};
use route_recognizer::Params;
use tide::Request;
use tide::http::headers::{HeaderName as TideName, Headers};
use tide::http::{Body, Method, Version};

use super::{BodyLimits, RawHeaders, Told};
use crate::admission::ServerLimits;
use crate::stream::Security;
use crate::sync::Mutex;
use crate::upgrade::Origin;

/// A request as it was read. It is one of HTTP/1.1.
pub(crate) struct ReadRequest<State> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: Uri,
    pub(crate) headers: HeaderMap,
    /// `None` for a request without a body, and once the body is taken.
    pub(crate) body: Mutex<Option<Body>>,
    /// `None` if the request came without a body.
    pub(crate) body_limits: Option<BodyLimits>,
    /// The parameters of the route.
    pub(crate) params: Params,
    pub(crate) state: State,
    pub(crate) origin: Arc<Origin>,
    /// The client as trusted proxies tell it.
    pub(crate) told: Option<Told>,
    pub(crate) tide: Arc<dyn IntoTide<State>>,
}

/// The conversion of a request into one of tide.
pub(crate) trait IntoTide<State>: Send + Sync {
    /// Makes tide's request of `request`, whose body it takes.
    fn convert(&self, request: &ReadRequest<State>) -> Request<State>;
}

/// The request of a context.
pub(crate) enum ContextRequest<State> {
    // Both are boxed: a handler's future holds the context more than once, and lives as long as its socket.
    Tide(Box<Request<State>>),
    Read(Box<Lazy<State>>),
}

/// A request as it was read, and as one of tide once that was asked for. From then on, only the latter counts.
pub(crate) struct Lazy<State> {
    read: ReadRequest<State>,
    tide: OnceLock<Box<Request<State>>>,
}

impl<State> ContextRequest<State> {
    /// A request that came through tide.
    pub(crate) fn of_tide(request: Request<State>) -> Self {
        Self::Tide(Box::new(request))
    }

    /// A request that goes straight to its handler.
    pub(crate) fn of_read(read: ReadRequest<State>) -> Self {
        Self::Read(Box::new(Lazy { read, tide: OnceLock::new() }))
    }

    /// tide's view of the request, which is made if it is not there yet.
    pub(super) fn tide(&self) -> &Request<State> {
        match self {
            Self::Tide(request) => request,
            Self::Read(lazy) => lazy.tide(),
        }
    }

    /// As [`tide`](Self::tide).
    pub(super) fn tide_mut(&mut self) -> &mut Request<State> {
        if let Self::Read(lazy) = self {
            *self = Self::Tide(lazy.take_tide());
        }
        match self {
            Self::Tide(request) => request,
            Self::Read(_) => unreachable!("it has just been replaced"),
        }
    }

    /// The request as it was read, unless tide's view of it has taken its place.
    fn read(&self) -> Result<&ReadRequest<State>, &Request<State>> {
        match self {
            Self::Tide(request) => Err(request),
            Self::Read(lazy) => lazy.tide.get().map_or(Ok(&lazy.read), |request| Err(request)),
        }
    }

    /// Copies what is kept for the life of a WebSocket: as it was read, it is a part of a larger buffer.
    pub(super) fn settle(&mut self) {
        if let Self::Read(lazy) = self {
            lazy.read.settle();
        }
    }

    /// Takes the body. Without one, it is empty.
    pub(super) fn take_body(&mut self) -> Body {
        match self.read() {
            Ok(read) => read.body.lock().take().unwrap_or_else(Body::empty),
            Err(_) => self.tide_mut().take_body(),
        }
    }

    /// The length of the body, if it is known.
    pub(super) fn body_len(&self) -> Option<usize> {
        match self.read() {
            Ok(read) => read.body.lock().as_ref().map_or(Some(0), Body::len),
            Err(request) => request.len(),
        }
    }

    pub(super) fn body_limits(&self) -> BodyLimits {
        let limits = match self.read() {
            Ok(read) => read.body_limits.as_ref(),
            Err(request) => request.ext(),
        };
        limits.cloned().unwrap_or_default()
    }

    pub(super) fn param(&self, name: &str) -> Option<&str> {
        match self.read() {
            Ok(read) => read.params.find(name),
            Err(request) => request.param(name).ok(),
        }
    }

    pub(super) fn state(&self) -> &State {
        match self.read() {
            Ok(read) => &read.state,
            Err(request) => request.state(),
        }
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self.read() {
            Ok(read) => read.origin.peer,
            Err(request) => request.ext::<Arc<Origin>>().and_then(|origin| origin.peer),
        }
    }

    pub(super) fn security(&self) -> Option<&Security> {
        let security = match self.read() {
            Ok(read) => read.origin.security.as_ref(),
            Err(request) => request.ext(),
        };
        security.map(Arc::as_ref)
    }

    /// The limits of the server on WebSocket connections.
    pub(super) fn server_limits(&self) -> Option<&ServerLimits> {
        match self.read() {
            Ok(read) => read.origin.limits.as_ref(),
            Err(request) => request.ext(),
        }
    }

    /// The client as trusted proxies tell it.
    pub(super) fn told(&self) -> Option<&Told> {
        match self.read() {
            Ok(read) => read.told.as_ref(),
            Err(request) => request.ext(),
        }
    }

    pub(super) fn method(&self) -> Method {
        match self.read() {
            Ok(read) => read.method,
            Err(request) => request.method(),
        }
    }

    pub(super) fn path(&self) -> &str {
        match self.read() {
            Ok(read) => read.target.path(),
            Err(request) => request.url().path(),
        }
    }

    pub(super) fn is_http_1_1(&self) -> bool {
        match self.read() {
            Ok(_) => true,
            // async-h1 accepts nothing older and does not always say.
            Err(request) => request.version().is_none_or(|version| version == Version::Http1_1),
        }
    }

    /// The values of a header, byte for byte: those that are ASCII, which tide can hold, before the others.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let of_read = self.read().ok().into_iter().flat_map(move |read| {
            let values = read.headers.get_all(name);
            let ascii = values.iter().map(HeaderValue::as_bytes).filter(|value| value.is_ascii());
            let others = values.iter().map(HeaderValue::as_bytes).filter(|value| !value.is_ascii());
            ascii.chain(others)
        });
        let of_tide = self.read().err().into_iter().flat_map(move |request| {
            let headers: &Headers = request.as_ref();
            let ascii = TideName::from_str(name).ok().and_then(|name| headers.get(name));
            let ascii = ascii.into_iter().flatten().map(|value| value.as_str().as_bytes());
            let raw = request.ext::<RawHeaders>();
            ascii.chain(raw.into_iter().flat_map(move |raw| raw.values(name)))
        });
        of_read.chain(of_tide)
    }
}

impl<State> Lazy<State> {
    fn tide(&self) -> &Request<State> {
        self.tide.get_or_init(|| self.read.convert())
    }

    fn take_tide(&mut self) -> Box<Request<State>> {
        self.tide.take().unwrap_or_else(|| self.read.convert())
    }
}

impl<State> ReadRequest<State> {
    fn convert(&self) -> Box<Request<State>> {
        Box::new(self.tide.convert(self))
    }

    fn settle(&mut self) {
        let mut copy = Vec::with_capacity(self.headers.values().map(HeaderValue::len).sum());
        self.headers.values().for_each(|value| copy.extend_from_slice(value.as_bytes()));
        let mut copy = Bytes::from(copy);
        for value in self.headers.values_mut() {
            let bytes = copy.split_to(value.len().min(copy.len()));
            // Never fails: the bytes are those of a value.
            if let Ok(copied) = HeaderValue::from_maybe_shared(bytes) {
                *value = copied;
            }
        }
        let target = self.target.path_and_query().map_or("/", PathAndQuery::as_str);
        if let Ok(copied) = Uri::from_str(target) {
            self.target = copied;
        }
    }
}
