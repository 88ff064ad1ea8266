//! The handlers that no middleware of tide runs around, by route.
//!
//! A request for one of them does not go through tide: see the page of [`http`](super). They are found by tide's rules,
//! since every route with a method is here, also one that tide answers, and the routes with parameters are in a router of
//! the same kind. A path without parameters that is a route itself always wins there, so it is looked up in a table.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use route_recognizer::{Params, Router};
use tide::http::{Method, Request};
use tide::utils::async_trait;
use tide::{Response, StatusCode};

use super::app::Routes;
use crate::handler::HandlerEndpoint;
use crate::reject::SharedJudge;
use crate::sync::Mutex;

/// The routes with a method. A handler is `None` if tide answers.
pub(crate) struct Handlers<State> {
    of_method: Vec<OfMethod<State>>,
    /// The same routes, with endpoints that [keep](Keep) the request: tide alone makes its `Request`.
    keeping: tide::Server<State>,
}

#[derive(Clone)]
struct OfMethod<State> {
    name: ::http::Method,
    method: Method,
    /// The routes without parameters, without their first slash.
    plain: HashMap<Box<str>, Option<HandlerEndpoint<State>>>,
    others: Option<Router<Option<HandlerEndpoint<State>>>>,
    /// The paths of `others`, without their first slash.
    paths: HashSet<Box<str>>,
}

/// The handler for a request, and the values that it gets.
pub(super) struct Found<State> {
    pub(super) handler: HandlerEndpoint<State>,
    pub(super) method: Method,
    pub(super) params: Params,
}

impl<State: Clone + Send + Sync + 'static> Handlers<State> {
    pub(super) fn with_state(state: State) -> Self {
        Self { of_method: Vec::new(), keeping: tide::Server::with_state(state) }
    }

    /// Adds a route for one method. `handler` is `None` if tide has to answer.
    fn add(&mut self, path: &str, method: Method, handler: Option<HandlerEndpoint<State>>) {
        let Ok(name) = ::http::Method::from_bytes(method.as_ref().as_bytes()) else { return };
        self.keeping.at(path).method(method, Keep);
        let index = self.of_method.iter().position(|of| of.name == name).unwrap_or_else(|| {
            let (plain, paths) = (HashMap::new(), HashSet::new());
            self.of_method.push(OfMethod { name, method, plain, others: None, paths });
            self.of_method.len() - 1
        });
        let Some(of_method) = self.of_method.get_mut(index) else { return };
        let is_plain = |segment: &str| segment.is_ascii() && !segment.starts_with([':', '*']);
        let route = path.strip_prefix('/').unwrap_or(path);
        if route.split('/').all(is_plain) {
            of_method.plain.insert(route.into(), handler);
        } else {
            of_method.others.get_or_insert_default().add(path, handler);
            of_method.paths.insert(route.into());
        }
    }

    /// Whether a route with this very path was added.
    fn has(&self, path: &str, method: Method) -> bool {
        let route = path.strip_prefix('/').unwrap_or(path);
        let mut of_method = self.of_method.iter().filter(|of| of.method == method);
        of_method.any(|of| of.plain.contains_key(route) || of.paths.contains(route))
    }

    /// The handler for a path that begins with a slash; `None` if tide has to answer.
    pub(super) fn find(&self, method: &::http::Method, path: &str) -> Option<Found<State>> {
        let of_method = self.of_method.iter().find(|of| of.name == *method)?;
        let found = |handler: &Option<HandlerEndpoint<State>>, params| {
            let (handler, method) = (handler.clone()?, of_method.method);
            Some(Found { handler, method, params })
        };
        if let Some(handler) = of_method.plain.get(path.strip_prefix('/')?) {
            return found(handler, Params::new());
        }
        let recognized = of_method.others.as_ref()?.recognize(path).ok()?;
        found(recognized.handler, recognized.params)
    }

    /// Makes a request with state and parameters of one for a route that is here.
    pub(super) fn convert(&self, mut request: Request) -> Option<tide::Request<State>> {
        let kept = Kept(Arc::default());
        request.ext_mut().insert(kept.clone());
        // Nothing waits there.
        let _: tide::http::Response = self.keeping.respond(request).now_or_never()?.ok()?;
        kept.0.lock().take()
    }
}

/// An endpoint that hands the request out.
struct Keep;

/// The place for a request of [`Keep`].
struct Kept<State>(Arc<Mutex<Option<tide::Request<State>>>>);

impl<State> Clone for Kept<State> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Endpoint<State> for Keep {
    async fn call(&self, mut request: tide::Request<State>) -> tide::Result {
        let inner: &mut Request = request.as_mut();
        if let Some(Kept(place)) = inner.ext_mut().remove() {
            *place.lock() = Some(request);
        }
        Ok(Response::new(StatusCode::Ok))
    }
}

impl<State: Clone> Clone for Handlers<State> {
    fn clone(&self) -> Self {
        Self { of_method: self.of_method.clone(), keeping: self.keeping.clone() }
    }
}

impl<State> fmt::Debug for Handlers<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

/// The tables of an app, to which a route adds its endpoints.
pub(crate) struct Tables<'a, State> {
    pub(crate) routes: &'a mut Routes,
    pub(super) handlers: &'a mut Handlers<State>,
    pub(crate) judge: &'a SharedJudge,
}

impl<State: Clone + Send + Sync + 'static> Tables<'_, State> {
    /// Records a route for one method, with its handler if it is one of this crate without middleware around it.
    pub(crate) fn add(
        &mut self,
        path: &str,
        method: Method,
        handler: Option<HandlerEndpoint<State>>,
    ) {
        // The answer to a HEAD depends on other routes, and CONNECT is refused.
        let handler = handler.filter(|_| !matches!(method, Method::Head | Method::Connect));
        self.routes.add(path, method);
        self.handlers.add(path, method, handler);
    }

    /// Whether there is a route for this very path and method.
    pub(crate) fn has(&self, path: &str, method: Method) -> bool {
        self.handlers.has(path, method)
    }

    pub(crate) fn reborrow(&mut self) -> Tables<'_, State> {
        Tables { routes: self.routes, handlers: self.handlers, judge: self.judge }
    }
}
