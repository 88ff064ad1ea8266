//! Routes: a path, and the endpoints added to it.

use std::any::Any;
use std::path::Path;
use std::{fmt, io};

use tide::http::Method;
use tide::utils::async_trait;

use super::Server;
use crate::context::BodyLimits;
use crate::files;
use crate::files::{Files, Served};
use crate::handler::{HandlerEndpoint, endpoint_of};
use crate::http::Tables;

/// A path of a [`Server`], to which tide endpoints, middleware and files are added.
///
/// It has the methods of tide's route. Besides, it records the methods of the path, for `Allow` in a 405
/// (RFC 9110 §15.5.6) and for the answer to `OPTIONS` (§9.3.7). [`endpoint`](crate::server::endpoint) turns a
/// handler of this crate into an endpoint.
///
/// ```
/// use tidewire::server::endpoint;
/// use tidewire::{RequestContext, Server};
///
/// let mut server = Server::new();
/// let mut files = server.at("/files");
/// files.at("/:name").delete(endpoint(|_ctx: RequestContext| async { Ok(()) }));
/// files.at("/").get(|_request: tide::Request<()>| async { Ok("none so far") });
/// ```
pub struct Route<'a, State> {
    tide: tide::Route<'a, State>,
    tables: Tables<'a, State>,
    /// Whether middleware of this route runs around its endpoints.
    has_middleware: bool,
}

impl<'a, State: Clone + Send + Sync + 'static> Route<'a, State> {
    #[track_caller]
    pub(super) fn new((tide, tables): (tide::Route<'a, State>, Tables<'a, State>)) -> Self {
        check_wildcards(tide.path(), 0);
        Self { tide, tables, has_middleware: false }
    }

    /// Returns the route of this path followed by `path`, with the middleware of this route.
    ///
    /// # Panics
    ///
    /// If the whole path has more than one wildcard: see [`Server::at`].
    #[track_caller]
    pub fn at(&mut self, path: &str) -> Route<'_, State> {
        let route = Route::new((self.tide.at(path), self.tables.reborrow()));
        Route { has_middleware: self.has_middleware, ..route }
    }

    /// The whole path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.tide.path()
    }

    /// Runs `middleware` around the endpoints that are added after this call.
    pub fn with(&mut self, middleware: impl tide::Middleware<State>) -> &mut Self {
        self.has_middleware = true;
        self.tide.with(middleware);
        self
    }

    /// Replaces [`ServerOptions::max_body_size`](crate::server::ServerOptions::max_body_size) for the endpoints that
    /// are added after this call: in bytes, `None` for no limit.
    ///
    /// ```
    /// # use tidewire::Server;
    /// # use tidewire::server::endpoint;
    /// # async fn upload(_: tidewire::RequestContext) -> tidewire::HandlerResult { Ok(()) }
    /// # let mut server = Server::new();
    /// server.at("/upload").max_body_size(1 << 30).post(endpoint(upload));
    /// ```
    pub fn max_body_size(&mut self, max: impl Into<Option<usize>>) -> &mut Self {
        self.with(MaxBodySize(max.into()))
    }

    /// Removes the middleware and [`max_body_size`](Self::max_body_size) for the endpoints that are added
    /// after this call.
    pub fn reset_middleware(&mut self) -> &mut Self {
        self.has_middleware = false;
        self.tide.reset_middleware();
        self
    }

    /// Calls `endpoint` for requests with this method.
    pub fn method(&mut self, method: Method, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        let handler = (&endpoint as &dyn Any).downcast_ref::<HandlerEndpoint<State>>();
        if let Some(handler) = handler {
            handler.set_judge(self.tables.judge);
        }
        let handler = handler.filter(|_| !self.has_middleware).cloned();
        self.tables.add(self.tide.path(), method, handler);
        self.tide.method(method, endpoint);
        self
    }

    /// Calls `endpoint` for requests with a method that has no endpoint of its own, `OPTIONS` included.
    pub fn all(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        if let Some(handler) = (&endpoint as &dyn Any).downcast_ref::<HandlerEndpoint<State>>() {
            handler.set_judge(self.tables.judge);
        }
        self.tables.routes.add_all(self.tide.path());
        self.tide.all(endpoint);
        self
    }

    /// Calls `endpoint` for `GET`, and for `HEAD` unless that has an endpoint of its own. The answer to
    /// `HEAD` is sent without the body.
    pub fn get(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Get, endpoint)
    }

    /// Calls `endpoint` for `HEAD`. Its `Content-Length` may state the length that the body of a `GET` would
    /// have.
    pub fn head(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Head, endpoint)
    }

    /// Calls `endpoint` for `POST`.
    pub fn post(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Post, endpoint)
    }

    /// Calls `endpoint` for `PUT`.
    pub fn put(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Put, endpoint)
    }

    /// Calls `endpoint` for `PATCH`.
    pub fn patch(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Patch, endpoint)
    }

    /// Calls `endpoint` for `DELETE`.
    pub fn delete(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Delete, endpoint)
    }

    /// Calls `endpoint` for `OPTIONS`. Without an endpoint, `OPTIONS` is answered with 204 and `Allow`.
    pub fn options(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Options, endpoint)
    }

    /// Calls `endpoint` for `TRACE`.
    pub fn trace(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Trace, endpoint)
    }

    /// Serves all paths at and below this one with the routes, middleware and state of `server`, like
    /// [`Server::nest`]. The middleware of this route runs around it.
    ///
    /// An app of tide can be nested, too. Its routes are not known to this crate. So its answers to
    /// `OPTIONS` are not changed, no `Allow` is added to its 405, and its routes with two wildcards are not
    /// refused.
    ///
    /// # Panics
    ///
    /// If the path has a wildcard: nesting adds one, and [`Server::at`] allows one only.
    #[track_caller]
    pub fn nest<Inner>(&mut self, server: impl Into<Server<Inner>>) -> &mut Self
    where
        Inner: Clone + Send + Sync + 'static,
    {
        check_wildcards(self.tide.path(), 1);
        let (app, routes) = server.into().app.into_parts();
        self.tables.routes.nest(self.tide.path(), &routes);
        self.tide.nest(app);
        self
    }

    /// Serves the files below a directory, by `GET` and `HEAD`: [`files`](Self::files) with the defaults of
    /// [`Files::new`].
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let mut server = tidewire::Server::new();
    /// server.at("/assets").serve_dir("public/")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the directory does not exist, or cannot be opened. The text has its path.
    ///
    /// # Panics
    ///
    /// If the path has a wildcard: the directory adds one, and [`Server::at`] allows one only.
    #[track_caller]
    pub fn serve_dir(&mut self, dir: impl AsRef<Path>) -> io::Result<()> {
        self.files(Files::new(dir))
    }

    /// Serves the files of a folder, by `GET` and `HEAD`: those below it at the paths below this one, and its index at
    /// this path with a slash. [`Files`] tells which files, and how.
    ///
    /// An endpoint for `GET` of this very path takes precedence, so `get("/", …)` and files at `/` go together. So does
    /// any route that is more specific than the path of a file. Where a server is nested at `/app`, its own path `/` is
    /// both `/app` and `/app/`, so there is no redirect between them.
    ///
    /// # Errors
    ///
    /// If the directory does not exist, or cannot be opened; the text has its path. If the name of the index is not
    /// that of a file, or the value of `Cache-Control` is none for HTTP.
    ///
    /// # Panics
    ///
    /// If the path has a wildcard: the directory adds one, and [`Server::at`] allows one only.
    #[track_caller]
    pub fn files(&mut self, files: Files) -> io::Result<()> {
        check_wildcards(self.tide.path(), 1);
        let served = files.check()?;
        self.serve(&served, false);
        self.at("").serve(&served, false);
        self.at(&format!("*{}", files::REST)).serve(&served, true);
        Ok(())
    }

    /// Serves one file, by `GET` and `HEAD`, as [`Files`] tells. If it is gone later on, the answer is 404.
    ///
    /// The path is the server's own, so symlinks are followed wherever they lead, and the name may be hidden.
    ///
    /// # Errors
    ///
    /// If the file does not exist, or is not a regular one. The text has its path.
    pub fn serve_file(&mut self, file: impl AsRef<Path>) -> io::Result<()> {
        self.serve(&files::one_file(file.as_ref())?, true);
        Ok(())
    }

    /// Answers `GET` of this path with files. Unless `replaces`, an endpoint that is there stays.
    fn serve(&mut self, served: &Served, replaces: bool) {
        if !replaces && self.tables.has(self.tide.path(), Method::Get) {
            return;
        }
        let (label, served) = (format!("GET {}", self.tide.path()), served.clone());
        self.get(endpoint_of(&label, move |ctx| served.clone().answer(ctx)));
    }
}

/// Middleware that replaces the body limit of requests.
struct MaxBodySize(Option<usize>);

#[async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Middleware<State> for MaxBodySize {
    async fn handle(
        &self,
        mut request: tide::Request<State>,
        next: tide::Next<'_, State>,
    ) -> tide::Result {
        BodyLimits::replace(request.as_mut(), self.0);
        Ok(next.run(request).await)
    }
}

/// Checks that a route has one wildcard at most. The router follows each way to match a path: with one
/// wildcard there is one for each slash of the path. With two, a path of 8 000 slashes took four seconds.
#[track_caller]
fn check_wildcards(path: &str, more: usize) {
    let wildcards = path.split('/').filter(|segment| segment.starts_with('*')).count() + more;
    assert!(wildcards <= 1, "the route `{path}` has more than one wildcard, or would have");
}

impl<State> fmt::Debug for Route<'_, State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").finish_non_exhaustive()
    }
}
