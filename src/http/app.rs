//! The application: tide's router, and a table of its routes.
//!
//! If a path does not have the method of a request, tide answers with a bare 405. Only tide's router knows
//! the methods that the path does have, and it does not tell them. So [`Routes`] records every route, in a
//! router of the same kind. It is searched for a 405 or a HEAD only, and costs other requests nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use route_recognizer::{Params, Router};
use tide::Next;
use tide::http::headers::{ALLOW, CONTENT_TYPE};
use tide::http::{Method, Request, Response, StatusCode};
use tide::utils::async_trait;

use super::handlers::{Handlers, Tables};
use crate::reject::{Reason, SharedJudge};
use crate::upgrade::Origin;

/// The routes, middleware and state of a server.
pub(crate) struct App<State> {
    tide: tide::Server<State>,
    routes: Arc<Routes>,
    handlers: Arc<Handlers<State>>,
    /// Whether middleware runs around every request.
    has_middleware: bool,
    has_access_log: bool,
    judge: SharedJudge,
}

impl<State: Clone + Send + Sync + 'static> App<State> {
    /// Creates an application without routes.
    pub(crate) fn with_state(state: State) -> Self {
        Self::new(tide::Server::with_state(state), Arc::default())
    }

    fn new(mut tide: tide::Server<State>, routes: Arc<Routes>) -> Self {
        tide.with(NoteErrors);
        let handlers = Arc::new(Handlers::with_state(tide.state().clone()));
        let (has_middleware, has_access_log) = (false, false);
        let judge = SharedJudge::default();
        Self { tide, routes, handlers, has_middleware, has_access_log, judge }
    }

    /// Adds a route. The caller records its methods in the returned tables.
    pub(crate) fn at(&mut self, path: &str) -> (tide::Route<'_, State>, Tables<'_, State>) {
        let routes = Arc::make_mut(&mut self.routes);
        let handlers = Arc::make_mut(&mut self.handlers);
        let tables = Tables { routes, handlers, judge: &self.judge };
        (self.tide.at(path), tables)
    }

    /// Runs `middleware` around every request.
    pub(crate) fn with(&mut self, middleware: impl tide::Middleware<State>) {
        self.has_middleware = true;
        self.tide.with(middleware);
    }

    /// Has the access log written.
    pub(crate) fn log_access(&mut self) {
        self.has_access_log = true;
    }

    pub(crate) fn has_access_log(&self) -> bool {
        self.has_access_log
    }

    /// Who judges the errors of the handlers.
    pub(crate) fn judge(&self) -> &SharedJudge {
        &self.judge
    }

    /// The state that the handlers share.
    pub(crate) fn state(&self) -> &State {
        self.tide.state()
    }

    /// Returns tide's part, to be nested in another app, and the table of its routes.
    pub(crate) fn into_parts(self) -> (tide::Server<State>, Arc<Routes>) {
        (self.tide, self.routes)
    }

    /// The handlers, if no middleware runs around all of them.
    pub(super) fn handlers(&self) -> Option<&Handlers<State>> {
        (!self.has_middleware).then_some(&*self.handlers)
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Answers a request. With the target `*`, `OPTIONS` is about the server as a whole (RFC 9110 §9.3.7).
    pub(crate) async fn respond(&self, mut request: Request, is_asterisk: bool) -> Response {
        let (method, path) = (request.method(), request.url().path().to_owned());
        if method == Method::Head && self.routes.leads_head_astray(&path) {
            request.set_method(Method::Get);
        }
        let response: tide::Result<Response> = self.tide.respond(request).await;
        let mut response = response.unwrap_or_else(|error| tide::Response::from(error).into());
        self.routes.complete(&mut response, method, (!is_asterisk).then_some(&*path));
        response
    }
}

/// For an app that was made by tide. The methods of its paths are not known.
impl<State: Clone + Send + Sync + 'static> From<tide::Server<State>> for App<State> {
    fn from(tide: tide::Server<State>) -> Self {
        let app = Self::new(tide, Arc::new(Routes { is_foreign: true, ..Routes::default() }));
        // Its own middleware is not known.
        Self { has_middleware: true, ..app }
    }
}

impl<State: Clone> Clone for App<State> {
    fn clone(&self) -> Self {
        Self {
            tide: self.tide.clone(),
            routes: Arc::clone(&self.routes),
            handlers: Arc::clone(&self.handlers),
            has_middleware: self.has_middleware,
            has_access_log: self.has_access_log,
            judge: self.judge.clone(),
        }
    }
}

/// Middleware that notes the errors of tide's own endpoints and middleware, for the log.
struct NoteErrors;

#[async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Middleware<State> for NoteErrors {
    async fn handle(&self, request: tide::Request<State>, next: Next<'_, State>) -> tide::Result {
        let origin: Option<Arc<Origin>> = request.ext().cloned();
        let response = next.run(request).await;
        let status = response.status();
        if let (Some(origin), Some(error), true) =
            (origin, response.error(), status.is_server_error())
        {
            origin.note_if_unknown(|| Reason::failed(error));
        }
        Ok(response)
    }
}

/// The routes of an app, by method.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    of_method: HashMap<Method, Router<()>>,
    /// The routes for all methods.
    of_all: Router<Endpoint>,
    nested: Vec<Arc<Self>>,
    /// Whether there are routes that are not recorded here.
    is_foreign: bool,
}

/// The endpoint of a route for all methods.
#[derive(Clone)]
enum Endpoint {
    Handler,
    Nested(Arc<Routes>),
}

impl Routes {
    /// Records a route for one method.
    pub(crate) fn add(&mut self, path: &str, method: Method) {
        self.of_method.entry(method).or_default().add(path, ());
    }

    /// Records a route for all methods.
    pub(crate) fn add_all(&mut self, path: &str) {
        self.of_all.add(path, Endpoint::Handler);
    }

    /// Records that all paths at and below `path` are those of `nested`.
    pub(crate) fn nest(&mut self, path: &str, nested: &Arc<Self>) {
        self.nested.push(Arc::clone(nested));
        self.of_all.add(path, Endpoint::Nested(Arc::clone(nested)));
        let slash = if path.ends_with('/') { "" } else { "/" };
        let below = format!("{path}{slash}*{REST}");
        self.of_all.add(&below, Endpoint::Nested(Arc::clone(nested)));
    }

    /// Adds the allowed methods to a 405 (RFC 9110 §15.5.6), and answers `OPTIONS` if no handler does
    /// (§9.3.7). Without a path, the request was for `*`.
    pub(super) fn complete(&self, response: &mut Response, method: Method, path: Option<&str>) {
        let is_unmet = match response.status() {
            StatusCode::MethodNotAllowed => response.header(ALLOW).is_none(),
            StatusCode::NotFound => path.is_none() && method == Method::Options,
            _ => false,
        };
        if !is_unmet {
            return;
        }
        let found = self.methods_at(path.unwrap_or("/*"));
        if found.are_all || (found.named.is_empty() && path.is_some()) {
            // The 405 comes from a handler for all methods, from an app whose routes are not known, or from
            // middleware.
            return;
        }
        let is_handled = found.named.contains(&method);
        let named = if path.is_some() { found.named } else { self.methods() };
        if method == Method::Options && !is_handled {
            response.set_status(StatusCode::NoContent);
            drop(response.take_body());
            response.remove_header(CONTENT_TYPE);
            response.insert_header(ALLOW, list(named, None));
        } else {
            response.insert_header(ALLOW, list(named, Some(method)));
        }
    }

    /// Whether tide would give a HEAD to another handler than the GET of the same path. It would, since for
    /// a HEAD it looks for a route for all methods before one for GET.
    fn leads_head_astray(&self, path: &str) -> bool {
        let has = |method| self.of_method.get(&method).is_some_and(|of| of.recognize(path).is_ok());
        if has(Method::Head) {
            return false;
        }
        match self.of_all.recognize(path) {
            Err(_) => false,
            Ok(_) if has(Method::Get) => true,
            Ok(found) => match found.handler {
                Endpoint::Handler => false,
                Endpoint::Nested(nested) => nested.leads_head_astray(rest(&found.params)),
            },
        }
    }

    /// The methods for which a path has a handler.
    fn methods_at(&self, path: &str) -> Methods {
        let of_method = self.of_method.iter().filter(|(_, of)| of.recognize(path).is_ok());
        let mut found = Methods {
            named: of_method.map(|(method, _)| *method).collect(),
            are_all: self.is_foreign,
        };
        let below = self.of_all.recognize(path);
        match below.as_ref().map(|below| (below.handler, rest(&below.params))) {
            Ok((Endpoint::Handler, _)) => found.are_all = true,
            Ok((Endpoint::Nested(nested), rest)) => {
                let nested = nested.methods_at(rest);
                found.named.extend(nested.named);
                found.are_all |= nested.are_all;
            }
            Err(_) => {}
        }
        found
    }

    /// The methods for which any path has a handler.
    fn methods(&self) -> Vec<Method> {
        let nested = self.nested.iter().flat_map(|nested| nested.methods());
        self.of_method.keys().copied().chain(nested).collect()
    }
}

/// The methods for which a path has a handler.
struct Methods {
    named: Vec<Method>,
    /// Whether a handler takes all methods.
    are_all: bool,
}

/// The name of tide's wildcard for the rest of a path, below which an app is nested.
const REST: &str = "--tide-path-rest";

fn rest(params: &Params) -> &str {
    params.find(REST).unwrap_or_default()
}

/// The value of `Allow`: these methods and those that they imply, without the one that was refused.
fn list(mut methods: Vec<Method>, refused: Option<Method>) -> String {
    methods.push(Method::Options);
    methods.retain(|method| Some(*method) != refused);
    if methods.contains(&Method::Get) && refused != Some(Method::Head) {
        methods.push(Method::Head);
    }
    let mut names: Vec<_> = methods.iter().map(Method::as_ref).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

impl<State> fmt::Debug for App<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("of_method", &self.of_method.keys())
            .field("is_foreign", &self.is_foreign)
            .finish_non_exhaustive()
    }
}
