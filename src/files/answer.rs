//! The handler of a folder or a file: from a request to its response.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tide::http::Method;
use tide::{Body, Response, StatusCode};

use super::body::FileBody;
use super::conditions::{Conditions, Verdict};
use super::disk::{Content, Found, Place, Selected};
use super::name::Name;
use super::range::Range;
use crate::context::RequestContext;
use crate::escaped::Escaped;
use crate::handler::is_told;
use crate::records::record;
use crate::reject::HandlerResult;
use crate::runtime::unblock;
use crate::sync::Mutex;

/// The parameter of a route that holds the path below the folder.
pub(crate) const REST: &str = "--tidewire-files";

/// The time between two records at level warn.
const PAUSE: Duration = Duration::from_secs(60);

/// A folder, or a file, that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    cache_control: Option<String>,
    serves_hidden: bool,
    /// The time of the last record at level warn.
    warned: Mutex<Option<Instant>>,
}

impl Served {
    pub(super) fn new(place: Place, cache_control: Option<String>, serves_hidden: bool) -> Self {
        Self(Arc::new(Inner { place, cache_control, serves_hidden, warned: Mutex::default() }))
    }

    /// Answers a `GET` or a `HEAD`.
    pub(crate) async fn answer<State>(self, ctx: RequestContext<State>) -> HandlerResult<Response>
    where
        State: Clone + Send + Sync + 'static,
    {
        let rest = ctx.param_raw(REST).unwrap_or_default();
        let name = match self.0.place {
            Place::Folder { .. } => {
                Name::parse(rest, ctx.path().ends_with('/'), self.0.serves_hidden)
            }
            Place::File(_) => Some(Name::default()),
        };
        let Some(name) = name else { return Ok(Response::new(StatusCode::NotFound)) };
        let is_get = ctx.method() == Method::Get;
        let conditions = Conditions::of(&ctx, is_get);
        let inner = Arc::clone(&self.0);
        let found = unblock(move || inner.find(&name, &conditions, is_get)).await;
        Ok(match found {
            Found::Missing => Response::new(StatusCode::NotFound),
            Found::Folder => with_slash(&ctx),
            Found::File(selected) => self.0.response(selected),
            Found::Failed => {
                let mut response = Response::new(StatusCode::InternalServerError);
                is_told(&mut response);
                response
            }
        })
    }
}

impl Inner {
    /// Finds a file. Runs on a thread that may wait.
    fn find(&self, name: &Name, conditions: &Conditions, is_get: bool) -> Found {
        self.place.find(name, conditions, is_get).unwrap_or_else(|error| {
            self.report(&name.path, &error);
            Found::Failed
        })
    }

    fn response(&self, Selected { path, file, verdict, content }: Selected) -> Response {
        let (status, range) = match verdict {
            Verdict::PreconditionFailed => return Response::new(StatusCode::PreconditionFailed),
            Verdict::NotModified => (StatusCode::NotModified, None),
            Verdict::Send(Range::Whole) => (StatusCode::Ok, None),
            Verdict::Send(Range::Part(first, last)) => {
                (StatusCode::PartialContent, Some(format!("bytes {first}-{last}/{}", file.len)))
            }
            Verdict::Send(Range::Unsatisfiable) => {
                let range = format!("bytes */{}", file.len);
                (StatusCode::RequestedRangeNotSatisfiable, Some(range))
            }
        };
        let mut response = Response::new(status);
        // None of the values has anything but ASCII, over which `insert_header` would panic.
        if let Some(range) = range {
            response.insert_header("content-range", range);
        }
        if status == StatusCode::RequestedRangeNotSatisfiable {
            return response;
        }
        if let Some(etag) = file.etag() {
            response.insert_header("etag", etag);
        }
        if let Some(value) = &self.cache_control {
            response.insert_header("cache-control", value.as_str());
        }
        if status == StatusCode::NotModified {
            // The other headers would tell nothing new (RFC 9110 §15.4.5).
            return response;
        }
        if let Some(date) = file.last_modified() {
            response.insert_header("last-modified", date);
        }
        response.insert_header("accept-ranges", "bytes");
        response.insert_header("x-content-type-options", "nosniff");
        match content {
            Some(Content::Read(bytes)) => response.set_body(bytes),
            Some(Content::Ahead(opened, len)) => {
                // Without a length, where a `usize` cannot hold it, it is sent in chunks.
                let body = FileBody::new(opened, len);
                response.set_body(Body::from_reader(body, usize::try_from(len).ok()));
            }
            None => response.insert_header("content-length", file.len.to_string()),
        }
        response.insert_header("content-type", media_type(&path));
        response
    }

    /// Tells of a failure of the server: loudly, unless that was done a short time ago. A client can bring about as
    /// many as it likes.
    fn report(&self, path: &Path, error: &io::Error) {
        let now = Instant::now();
        let is_due = {
            let mut warned = self.warned.lock();
            let is_due = warned.is_none_or(|last| now.duration_since(last) >= PAUSE);
            if is_due {
                *warned = Some(now);
            }
            is_due
        };
        let full = self.place.path().join(path);
        let (path, error) = (Escaped(full.display()), Escaped(error));
        if is_due {
            record!(warn, "cannot serve a file", path = path, error = error);
        } else {
            record!(debug, "cannot serve a file", path = path, error = error);
        }
    }
}

/// The redirect from a folder to the same path with a slash, so that the links of its index lead below it.
///
/// The target is relative to the path of the request, so it is on the same host, whatever the path looks like, and
/// right below a prefix that this server does not see.
fn with_slash<State>(ctx: &RequestContext<State>) -> Response
where
    State: Clone + Send + Sync + 'static,
{
    let url = ctx.request().url();
    let last = url.path().rsplit('/').next().unwrap_or_default();
    // With `./`, a colon in the name ends no scheme.
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(StatusCode::PermanentRedirect);
    response.insert_header("location", format!("./{last}/{query}"));
    response
}

/// The media type of a file, by its extension.
fn media_type(path: &Path) -> String {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    let is_text = guess.type_() == "text";
    if is_text { format!("{guess};charset=utf-8") } else { guess.to_string() }
}
