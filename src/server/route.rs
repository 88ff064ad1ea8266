//! A path, and what is added to it.

use std::path::Path;
use std::{fmt, io};

use tide::http::Method;
use tide::utils::async_trait;

use super::Server;
use crate::context::BodyLimits;
use crate::http::Routes;

/// A path of a [`Server`], to which endpoints of tide, middleware and files are added.
///
/// It is tide's route, with the same methods, and notes which methods the path has: for `Allow` in a 405
/// (RFC 9110 §15.5.6) and for the answer to `OPTIONS` (§9.3.7). Handlers of this crate become endpoints
/// through [`endpoint`](crate::endpoint).
///
/// ```
/// use tidewire::{RequestContext, Server, endpoint};
///
/// let mut server = Server::new();
/// let mut files = server.at("/files");
/// files.at("/:name").delete(endpoint(|_ctx: RequestContext| async { Ok(()) }));
/// files.at("/").get(|_request: tide::Request<()>| async { Ok("none so far") });
/// ```
pub struct Route<'a, State> {
    route: tide::Route<'a, State>,
    routes: &'a mut Routes,
}

impl<'a, State: Clone + Send + Sync + 'static> Route<'a, State> {
    #[track_caller]
    pub(super) fn new((route, routes): (tide::Route<'a, State>, &'a mut Routes)) -> Self {
        check_wildcards(route.path(), 0);
        Self { route, routes }
    }

    /// The path of this one followed by `path`, with the middleware of this one.
    ///
    /// # Panics
    ///
    /// If the whole path has more than one wildcard, as [`Server::at`].
    #[track_caller]
    pub fn at(&mut self, path: &str) -> Route<'_, State> {
        Route::new((self.route.at(path), self.routes))
    }

    /// The whole path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.route.path()
    }

    /// Runs `middleware` around the endpoints that are added from here on.
    pub fn with(&mut self, middleware: impl tide::Middleware<State>) -> &mut Self {
        self.route.with(middleware);
        self
    }

    /// Replaces [`ServerOptions::max_body_size`](crate::ServerOptions::max_body_size) for the endpoints that
    /// are added from here on: in bytes, `None` for no limit.
    ///
    /// ```
    /// # use tidewire::{Server, endpoint};
    /// # async fn upload(_: tidewire::RequestContext) -> tide::Result<()> { Ok(()) }
    /// # let mut server = Server::new();
    /// server.at("/upload").max_body_size(1 << 30).post(endpoint(upload));
    /// ```
    pub fn max_body_size(&mut self, max: impl Into<Option<usize>>) -> &mut Self {
        self.with(MaxBodySize(max.into()))
    }

    /// Forgets the middleware, and [`max_body_size`](Self::max_body_size), for the endpoints that are added
    /// from here on.
    pub fn reset_middleware(&mut self) -> &mut Self {
        self.route.reset_middleware();
        self
    }

    /// Calls `endpoint` for requests with this method.
    pub fn method(&mut self, method: Method, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.routes.add(self.route.path(), method);
        self.route.method(method, endpoint);
        self
    }

    /// Calls `endpoint` for requests with a method that has none of its own, `OPTIONS` included.
    pub fn all(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.routes.add_all(self.route.path());
        self.route.all(endpoint);
        self
    }

    /// Calls `endpoint` for `GET`, and for `HEAD` if that has none of its own: it is answered without the
    /// body then.
    pub fn get(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Get, endpoint)
    }

    /// Calls `endpoint` for `HEAD`. The length of what a `GET` would have may be stated in
    /// `Content-Length`.
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

    /// Calls `endpoint` for `OPTIONS`. Without one, it is answered with 204 and `Allow`.
    pub fn options(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Options, endpoint)
    }

    /// Calls `endpoint` for `TRACE`.
    pub fn trace(&mut self, endpoint: impl tide::Endpoint<State>) -> &mut Self {
        self.method(Method::Trace, endpoint)
    }

    /// Serves everything at and below the path with the routes, middleware and state of `server`, as
    /// [`Server::nest`], around which the middleware of this route runs.
    ///
    /// An app of tide's can be nested, too. Its routes are not known: what it answers to `OPTIONS` is not
    /// altered, its 405 has no `Allow` but one of its own, and nothing refuses a route of it with two
    /// wildcards.
    ///
    /// # Panics
    ///
    /// If the path has a wildcard: nesting adds one, as [`Server::at`].
    #[track_caller]
    pub fn nest<Inner>(&mut self, server: impl Into<Server<Inner>>) -> &mut Self
    where
        Inner: Clone + Send + Sync + 'static,
    {
        check_wildcards(self.route.path(), 1);
        let (app, routes) = server.into().app.into_parts();
        self.routes.nest(self.route.path(), &routes);
        self.route.nest(app);
        self
    }

    /// Serves the files below a directory, by `GET` and `HEAD`.
    ///
    /// # Errors
    ///
    /// If there is no such directory.
    ///
    /// # Panics
    ///
    /// If the path has a wildcard: the directory adds one, as [`Server::at`].
    #[track_caller]
    pub fn serve_dir(&mut self, dir: impl AsRef<Path>) -> io::Result<()> {
        check_wildcards(self.route.path(), 1);
        self.route.serve_dir(dir)?;
        let path = self.route.at("*").path().to_owned();
        self.routes.add(&path, Method::Get);
        Ok(())
    }

    /// Serves one file, by `GET` and `HEAD`.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn serve_file(&mut self, file: impl AsRef<Path>) -> io::Result<()> {
        self.route.serve_file(file)?;
        self.routes.add(self.route.path(), Method::Get);
        Ok(())
    }
}

/// Replaces the limit of the requests that pass.
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

/// The router keeps a thread for each way to match a path. With one wildcard there is one for each slash
/// of the route; with two, 8 000 slashes took it four seconds.
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
