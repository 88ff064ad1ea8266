//! The conversion of hyper's requests into tide's, and of tide's responses into hyper's.
//!
//! This code does not panic on any input of a peer or a handler. If only one of the two sides can express
//! a value, it is refused or stored elsewhere: header values that are not ASCII go to [`RawHeaders`].

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use ::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use ::http::uri::Authority;
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, request};
use bytes::Bytes;
use futures::channel::oneshot;
use hyper::body::{Body as _, Incoming};
use route_recognizer::Params;
use tide::http::headers::{
    HeaderName as TideName, HeaderValue as TideValue, HeaderValues as TideValues,
};
use tide::http::{Body, Method, Request, Response, Url};

use super::ServerOptions;
use super::body::{RequestBody, ResponseBody};
use super::exchange::HttpProgress;
use super::refusal::Refusal;
use crate::context::{BodyLimits, IntoTide, RawHeaders, ReadRequest, Told};
use crate::instance::Instance;
use crate::sync::Mutex;
use crate::upgrade::{Field, Origin, Upgraded};

/// Makes a request for tide, or returns the reason to refuse it.
pub(super) fn request(
    request: ::http::Request<Incoming>,
    options: &ServerOptions,
    exchange: &Arc<HttpProgress>,
) -> Result<Request, Refusal> {
    let origin = exchange.origin();
    let (head, incoming) = request.into_parts();
    let limits = body_limits(options);
    let body = body(incoming, options, &limits, exchange);
    check_lengths(&head.method, &head.uri, &head.headers, options)?;
    check_coding(&head.headers)?;

    let (mut request, authority) = request_line(&head, origin)?;
    if !options.allowed_hosts.allow(request.url().host_str()) {
        return Err(Refusal::HostNotAllowed);
    }
    let told = told(options, origin, &head.headers);
    fill(&mut request, &head.headers, origin, told, limits, body);
    if head.uri.authority().is_some() {
        // An absolute target replaces the value of Host (RFC 9112 §3.2.2).
        if let Ok(host) = TideValue::from_str(authority.as_str()) {
            request.insert_header(HOST.as_str(), host);
        }
    }
    Ok(request)
}

/// Whether a request may go straight to its handler: no rule refuses it, and `Url` would change neither its host nor its
/// path. If this is false, [`request`] decides.
pub(super) fn is_plain(request: &::http::Request<Incoming>, options: &ServerOptions) -> bool {
    let (uri, headers) = (request.uri(), request.headers());
    request.version() == Version::HTTP_11
        && uri.authority().is_none()
        && is_plain_path(uri.path())
        && plain_host(headers).is_some_and(|host| options.allowed_hosts.allow(Some(host)))
        && check_coding(headers).is_ok()
        && check_lengths(request.method(), uri, headers, options).is_ok()
}

/// The request that hyper has read, of a connection from `origin`, for a handler. It has to be [plain](is_plain).
pub(super) fn read<State>(
    request: ::http::Request<Incoming>,
    options: &ServerOptions,
    exchange: &Arc<HttpProgress>,
    found: (Method, Params, State),
    tide: Arc<dyn IntoTide<State>>,
) -> ReadRequest<State> {
    let (head, incoming) = request.into_parts();
    let (method, params, state) = found;
    let body_limits = (!incoming.is_end_stream()).then(|| body_limits(options));
    let body = body_limits.as_ref().and_then(|limits| body(incoming, options, limits, exchange));
    let origin = exchange.origin();
    ReadRequest {
        method,
        told: told(options, origin, &head.headers),
        target: head.uri,
        headers: head.headers,
        body: Mutex::new(body),
        body_limits,
        params,
        state,
        origin: Arc::clone(origin),
        tide,
    }
}

/// Makes a request for tide of one that was plain, whose body it takes.
pub(super) fn read_request<State>(
    read: &ReadRequest<State>,
    options: &ServerOptions,
    instance: &Arc<Instance>,
) -> Request {
    let host = plain_host(&read.headers).unwrap_or_default();
    let authority = Authority::try_from(host);
    let authority = authority.unwrap_or_else(|_| Authority::from_static("localhost"));
    let url = url(&authority, &read.target, read.origin.security.is_some());
    let mut request = Request::new(read.method, url.unwrap_or_else(|_| base(false)));
    request.set_version(Some(tide::http::Version::Http1_1));
    let body_limits = read.body_limits.clone().unwrap_or_else(|| body_limits(options));
    let body = read.body.lock().take();
    fill(&mut request, &read.headers, &read.origin, read.told, body_limits, body);
    request.ext_mut().insert(Arc::clone(instance));
    request
}

fn body_limits(options: &ServerOptions) -> BodyLimits {
    BodyLimits::new(options.max_body_size, options.body_deadline, &options.clock)
}

/// The body of a request, if it has one.
fn body(
    incoming: Incoming,
    options: &ServerOptions,
    limits: &BodyLimits,
    exchange: &Arc<HttpProgress>,
) -> Option<Body> {
    if incoming.is_end_stream() {
        return None;
    }
    let len = incoming.size_hint().exact().and_then(|len| usize::try_from(len).ok());
    let (timeout, exchange) = (options.body_timeout, Arc::clone(exchange));
    let body = RequestBody::new(incoming, timeout, limits.clone(), exchange);
    Some(Body::from_reader(body, len))
}

/// The client as trusted proxies tell it.
fn told(options: &ServerOptions, origin: &Origin, headers: &HeaderMap) -> Option<Told> {
    if options.trusted_proxies.is_empty() {
        return None;
    }
    let (header, peer) = (options.client_ip_header.as_ref(), origin.peer.map(|peer| peer.ip()));
    options.trusted_proxies.told(header, peer, headers)
}

/// Adds all but method, URL and version.
fn fill(
    request: &mut Request,
    headers: &HeaderMap,
    origin: &Arc<Origin>,
    told: Option<Told>,
    limits: BodyLimits,
    body: Option<Body>,
) {
    request.set_peer_addr(origin.peer);
    request.set_local_addr(origin.local);
    if let Some(security) = &origin.security {
        request.ext_mut().insert(Arc::clone(security));
    }
    request.ext_mut().insert(Arc::clone(origin));
    request.ext_mut().insert(limits);
    if let Some(told) = told {
        request.ext_mut().insert(told);
    }
    if let Some(body) = body {
        request.set_body(body);
        // `set_body` has set a content type. The client's own is added below.
        request.remove_header(CONTENT_TYPE.as_str());
    }
    copy_headers(headers, request);
}

/// Makes a response for hyper.
///
/// `upgrade` receives the stream after a 101. Without it, a 101 is an error.
pub(super) fn response(
    mut response: Response,
    to_head: bool,
    upgrade: Option<oneshot::Sender<Upgraded>>,
    exchange: &HttpProgress,
) -> Result<::http::Response<ResponseBody>, Refusal> {
    let status = StatusCode::from_u16(response.status().into())
        .map_err(|error| invalid(&format!("status: {error}")))?;
    let mut headers = response_headers(&response)?;
    let body = frame(status, to_head, &mut headers, response.take_body());

    if status == StatusCode::SWITCHING_PROTOCOLS {
        grant(upgrade, exchange)?;
    } else if status.is_informational() {
        return Err(invalid(&format!("{status} is not a final status")));
    }
    let mut response = ::http::Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn check_lengths(
    method: &::http::Method,
    uri: &Uri,
    headers: &HeaderMap,
    options: &ServerOptions,
) -> Result<(), Refusal> {
    let target = target_len(uri);
    if target > options.max_uri_len {
        return Err(Refusal::TargetTooLong { len: target, max: options.max_uri_len });
    }
    let line = method.as_str().len() + target + "  HTTP/1.1\r\n".len();
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + ": ".len() + value.len() + "\r\n".len());
    let len = line + fields.sum::<usize>() + "\r\n".len();
    if len > options.max_head_size {
        return Err(Refusal::HeadTooLarge { len, max: options.max_head_size });
    }
    Ok(())
}

fn target_len(uri: &Uri) -> usize {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

/// Refuses transfer codings other than `chunked`. hyper decodes `chunked`, and would pass on bytes in any
/// other coding.
fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let known = match codings.next() {
        None => true,
        Some(coding) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
    };
    if known && codings.next().is_none() { Ok(()) } else { Err(Refusal::CodingUnknown) }
}

/// Checks method, target and version. Returns them with the authority that the target names or implies.
fn request_line(head: &request::Parts, origin: &Origin) -> Result<(Request, Authority), Refusal> {
    let method = Method::from_str(head.method.as_str())
        .ok()
        // Methods are case-sensitive (RFC 9110 §9.1), but `http_types` ignores case.
        .filter(|method| method.as_ref() == head.method.as_str() && *method != Method::Connect)
        .ok_or(Refusal::MethodUnknown)?;
    let host = host(head)?;
    let authority = match (target_authority(&head.uri)?, host) {
        (Some(authority), _) | (None, Some(authority)) => authority,
        // A request of HTTP/1.0 may name no host.
        (None, None) => own_authority(origin)?,
    };
    if head.uri.path() == "*" && method != Method::Options {
        return Err(Refusal::TargetInvalid);
    }
    if has_dot_segment(head.uri.path()) {
        return Err(Refusal::DotSegment);
    }
    let url = url(&authority, &head.uri, origin.security.is_some())?;
    let mut request = Request::new(method, url);
    request.set_version(Some(match head.version {
        Version::HTTP_10 => tide::http::Version::Http1_0,
        _ => tide::http::Version::Http1_1,
    }));
    Ok((request, authority))
}

/// Whether a segment is `.` or `..`, percent-encoded or not (RFC 3986 §3.3, §6.2.2.2).
///
/// `Url` would resolve such a segment, and the router would see another path than a proxy in front of us,
/// which may have rules for paths. Honest clients resolve such segments themselves.
fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        while let Some(after) = without_dot(rest) {
            rest = after;
            dots += 1;
        }
        rest.is_empty() && (1..=2).contains(&dots)
    })
}

fn without_dot(text: &str) -> Option<&str> {
    let encoded = || text.strip_prefix("%2e").or_else(|| text.strip_prefix("%2E"));
    text.strip_prefix('.').or_else(encoded)
}

/// The authority for a client that names no host: the local address of the connection.
fn own_authority(origin: &Origin) -> Result<Authority, Refusal> {
    let Some(mut local) = origin.local else { return Ok(Authority::from_static("localhost")) };
    if let SocketAddr::V6(local) = &mut local {
        // A zone has a meaning on this host only, and a URL cannot hold one.
        local.set_scope_id(0);
    }
    Authority::try_from(local.to_string()).map_err(|_| Refusal::HostMissing)
}

/// The value of `Host`; `None` if it is missing in HTTP/1.0.
fn host(head: &request::Parts) -> Result<Option<Authority>, Refusal> {
    let mut lines = head.headers.get_all(HOST).iter();
    let Some(line) = lines.next() else {
        return match head.version {
            Version::HTTP_10 => Ok(None),
            _ => Err(Refusal::HostMissing),
        };
    };
    if lines.next().is_some() {
        return Err(Refusal::HostRepeated);
    }
    let authority = Authority::try_from(line.as_bytes()).map_err(|_| Refusal::HostInvalid)?;
    if is_host_and_port(&authority) { Ok(Some(authority)) } else { Err(Refusal::HostInvalid) }
}

/// The authority of an absolute target (RFC 9112 §3.2.2).
fn target_authority(uri: &Uri) -> Result<Option<Authority>, Refusal> {
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(None),
        (Some("http" | "https"), Some(authority)) if is_host_and_port(authority) => {
            Ok(Some(authority.clone()))
        }
        // Another scheme, user information, or a bare authority, which only CONNECT may have.
        _ => Err(Refusal::TargetInvalid),
    }
}

fn is_host_and_port(authority: &Authority) -> bool {
    let Some(port) = authority.as_str().strip_prefix(authority.host()) else {
        return false; // user information
    };
    match port.strip_prefix(':') {
        Some("") | None => port.len() <= 1,
        Some(_) => authority.port_u16().is_some(),
    }
}

/// Whether `Url` leaves a path as it is.
fn is_plain_path(path: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~!$&'()*+,;=:@/".contains(&byte);
    let mut others = path.bytes().filter(|byte| !is_letter(*byte)).peekable();
    let may_have_dots = others.peek().is_some();
    path.starts_with('/')
        && others.all(|byte| matches!(byte, b'.' | b'%'))
        && !(may_have_dots && has_dot_segment(path))
}

/// The value of `Host` without its port, if it is there once and [plain](plain_name).
fn plain_host(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(HOST).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    plain_name(line.to_str().ok()?)
}

/// A host without its port, if `Url` leaves it as it is: an IPv4 address, or a name in lower case without international
/// letters.
fn plain_name(line: &str) -> Option<&str> {
    let len = line.bytes().position(|byte| byte == b':').unwrap_or(line.len());
    let (host, port) = line.split_at_checked(len)?;
    let digits = port.get(1..).unwrap_or_default();
    let is_port = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    if !port.is_empty() && !is_port {
        return None;
    }
    // No label is empty, and none has two hyphens in a row, as an international one has. A name whose last label may
    // be a number is one that `Url` may read as an address.
    let (mut before, mut is_last_a_number) = (b'.', true);
    let is_name = host.bytes().all(|byte| {
        let previous = std::mem::replace(&mut before, byte);
        if previous == b'.' {
            is_last_a_number = !byte.is_ascii_lowercase();
        }
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'-' | b'.' => !matches!(previous, b'-' | b'.'),
            _ => false,
        }
    });
    let is_name = is_name && before != b'.' && !is_last_a_number;
    (is_name || host.parse::<Ipv4Addr>().is_ok()).then_some(host)
}

/// The URL whose parts are replaced by those of a request.
fn base(is_secure: bool) -> Url {
    static BASES: LazyLock<[Url; 2]> = LazyLock::new(|| {
        #[expect(clippy::expect_used, reason = "both are constants")]
        ["http://localhost/", "https://localhost/"].map(|base| Url::parse(base).expect("a URL"))
    });
    let [http, https] = &*BASES;
    if is_secure { https.clone() } else { http.clone() }
}

/// Builds a URL part by part, so that no part can change the meaning of another.
fn url(authority: &Authority, target: &Uri, is_secure: bool) -> Result<Url, Refusal> {
    let mut url = base(is_secure);
    url.set_host(Some(authority.host())).map_err(|_| Refusal::HostInvalid)?;
    url.set_port(authority.port_u16()).map_err(|()| Refusal::HostInvalid)?;
    let path = target.path();
    if path.contains('\\') {
        // `Url` would read a backslash as a slash, unlike a proxy in front of us.
        url.set_path(&path.replace('\\', "%5C"));
    } else {
        url.set_path(path);
    }
    url.set_query(target.query());
    Ok(url)
}

fn copy_headers(headers: &HeaderMap, request: &mut Request) {
    let mut raw = RawHeaders::default();
    for (name, value) in headers {
        let tide_name = TideName::from_str(name.as_str());
        // All values are copied: hyper's values are slices of its read buffer, and would keep it alive.
        match (tide_name, TideValue::from_bytes(value.as_bytes().to_vec())) {
            (Ok(name), Ok(value)) => request.append_header(name, value),
            _ => raw.push(owned(name), value.as_bytes().to_vec()),
        }
    }
    if !raw.is_empty() {
        request.ext_mut().insert(raw);
    }
}

/// A copy of `name` that shares no memory with hyper's read buffer.
fn owned(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

/// The response of 200 for an answer that needs none of tide.
pub(super) fn plain_response(
    media_type: Option<&'static str>,
    body: impl Into<Bytes>,
) -> ::http::Response<ResponseBody> {
    let mut response = ::http::Response::new(ResponseBody::full(body));
    if let Some(media_type) = media_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    response
}

/// The 101 with the fields of an opening handshake.
pub(super) fn switching(
    fields: Vec<Field>,
    upgrade: Option<oneshot::Sender<Upgraded>>,
    exchange: &HttpProgress,
) -> Result<::http::Response<ResponseBody>, Refusal> {
    let mut response = ::http::Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in fields {
        let line = HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| invalid(&format!("header {name}: {error}")))?;
        let value = match value {
            Cow::Borrowed(value) => HeaderValue::from_str(value),
            Cow::Owned(value) => HeaderValue::from_maybe_shared(Bytes::from(value)),
        };
        let value = value.map_err(|error| invalid(&format!("header {name}: {error}")))?;
        response
            .headers_mut()
            .try_append(line, value)
            .map_err(|error| invalid(&format!("header {name}: {error}")))?;
    }
    grant(upgrade, exchange)?;
    Ok(response)
}

/// Has the stream given away after a 101.
fn grant(
    upgrade: Option<oneshot::Sender<Upgraded>>,
    exchange: &HttpProgress,
) -> Result<(), Refusal> {
    let upgrade = upgrade.ok_or_else(|| invalid("101 to a request without an upgrade"))?;
    exchange.grant(upgrade);
    Ok(())
}

fn response_headers(response: &Response) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, values) in response {
        append(&mut headers, name, values)?;
    }
    Ok(headers)
}

fn append(headers: &mut HeaderMap, name: &TideName, values: &TideValues) -> Result<(), Refusal> {
    let line = HeaderName::from_bytes(name.as_str().as_bytes())
        .map_err(|error| invalid(&format!("header {name}: {error}")))?;
    for value in values {
        // `http_types` allows line breaks, which could turn one value into two headers.
        let value = HeaderValue::from_str(value.as_str())
            .map_err(|error| invalid(&format!("header {name}: {error}")))?;
        headers
            .try_append(line.clone(), value)
            .map_err(|error| invalid(&format!("header {name}: {error}")))?;
    }
    Ok(())
}

/// Chooses the body to write, and keeps only the framing headers that fit it (RFC 9112 §6).
fn frame(status: StatusCode, to_head: bool, headers: &mut HeaderMap, body: Body) -> ResponseBody {
    headers.remove(TRANSFER_ENCODING);
    let claimed = headers.remove(CONTENT_LENGTH);
    match status {
        StatusCode::SWITCHING_PROTOCOLS => {
            headers.remove(CONTENT_TYPE);
            ResponseBody::empty()
        }
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED => {
            ResponseBody::empty()
        }
        _ if to_head => {
            // The length that the answer to a GET would have: of the body, or as a HEAD route states it.
            let len = body.len().filter(|len| *len > 0).map(HeaderValue::from);
            let claimed = claimed.filter(|len| len.as_bytes().iter().all(u8::is_ascii_digit));
            if let Some(len) = len.or(claimed) {
                headers.insert(CONTENT_LENGTH, len);
            }
            ResponseBody::empty()
        }
        _ => ResponseBody::streamed(body),
    }
}

fn invalid(what: &str) -> Refusal {
    Refusal::ResponseInvalid(format!("the response cannot be sent: {what}").into())
}
