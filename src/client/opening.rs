//! The steps from a URL to an open connection, with redirects and deadlines.

use std::sync::Arc;

use bytes::Bytes;
use futures::io::AsyncWriteExt;

use super::dial::Dialled;
use super::request::Opening;
use super::response::{Answer, SWITCHING_PROTOCOLS};
use super::target::Target;
use super::{Parts, check_response};
use crate::connection::{Deflation, Opened as Agreement, Shared};
use crate::error::{ConnectError, ConnectStep, HandshakeResponse};
use crate::options::deflate::Agreement as DeflateAgreement;
use crate::proto::Role;
use crate::runtime::Clock;
use crate::stream::Stream;

/// An open connection.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) response: HandshakeResponse,
}

/// A handshake to which the server has sent a response.
struct Answered {
    dialled: Dialled,
    key: String,
    answer: Answer,
}

/// Opens a connection to the server of the URL.
pub(super) async fn open(parts: &Parts) -> Result<Opened, ConnectError> {
    let mut target = Target::parse(&parts.url)?;
    let mut redirects = 0;
    let mut is_first = true;
    loop {
        let opening = Opening::new(parts, &target, is_first)?;
        let dialled = dial(parts, &target).await?;
        let answered = ask(parts, dialled, opening).await?;
        let Some(next) = redirect(&answered.answer, &target) else {
            return conclude(parts, answered).await;
        };
        let may_follow = redirects < parts.max_redirects;
        let next = match next {
            // Never from TLS to plain text, where the network could read the headers.
            Ok(next) if may_follow && (next.is_secure || !target.is_secure) => next,
            Err(error) if may_follow => return Err(error),
            _ => {
                return Err(ConnectError::Redirected(Box::new(answered.body(parts.clock()).await)));
            }
        };
        redirects += 1;
        // Secrets are for the origin that the caller named. A way back to it may be a trap of another origin.
        is_first = is_first && target.is_same_origin(&next);
        target = next;
    }
}

/// Opens a connection over a stream of the caller.
pub(super) async fn over(parts: &Parts, stream: Stream) -> Result<Opened, ConnectError> {
    let target = Target::parse(&parts.url)?;
    let opening = Opening::new(parts, &target, true)?;
    let answered = ask(parts, Dialled { stream, peer_addr: None }, opening).await?;
    conclude(parts, answered).await
}

async fn dial(parts: &Parts, target: &Target) -> Result<Dialled, ConnectError> {
    let clock = parts.clock();
    let dialling = Box::pin(parts.route.go(target, clock));
    let dialled = clock.timeout(parts.connect_timeout, dialling).await;
    dialled.unwrap_or(Err(ConnectError::TimedOut(ConnectStep::Connect)))
}

/// Sends the request, and reads the head of the response.
async fn ask(
    parts: &Parts,
    mut dialled: Dialled,
    opening: Opening,
) -> Result<Answered, ConnectError> {
    let stream = &mut dialled.stream;
    let asking = async {
        let failed = |error: std::io::Error| ConnectError::Io(error.into());
        stream.write_all(&opening.bytes).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        Answer::read(stream).await
    };
    let answer = parts.clock().timeout(parts.handshake_timeout, asking).await;
    let answer = answer.unwrap_or(Err(ConnectError::TimedOut(ConnectStep::Handshake)))?;
    Ok(Answered { dialled, key: opening.key, answer })
}

/// The target of a redirect (RFC 9110 §15.4); `None` if the response is not a redirect.
fn redirect(answer: &Answer, from: &Target) -> Option<Result<Target, ConnectError>> {
    if !matches!(answer.response.status(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    Some(from.join(answer.response.header("location")?))
}

/// Makes the opening handshake over a stream of the caller. Returns the stream, the bytes after the response,
/// and the response.
#[cfg(feature = "testing")]
pub(super) async fn greet(
    parts: &Parts,
    stream: Stream,
) -> Result<(Stream, Bytes, HandshakeResponse), ConnectError> {
    let target = Target::parse(&parts.url)?;
    let opening = Opening::new(parts, &target, true)?;
    let answered = ask(parts, Dialled { stream, peer_addr: None }, opening).await?;
    let (Answered { dialled, answer, .. }, _) = accepted(parts, answered).await?;
    Ok((dialled.stream, answer.unread, answer.response))
}

/// Makes a connection of a 101, and an error of any other response.
async fn conclude(parts: &Parts, answered: Answered) -> Result<Opened, ConnectError> {
    let (Answered { dialled, answer, .. }, agreed) = accepted(parts, answered).await?;
    let Answer { response, unread } = answer;
    Ok(Opened { shared: connection(parts, dialled, unread, agreed), response })
}

/// Returns the parameters of a 101 that keeps the rules. Any other response is an error.
async fn accepted(
    parts: &Parts,
    answered: Answered,
) -> Result<(Answered, check_response::Agreed), ConnectError> {
    let response = &answered.answer.response;
    if response.status() != SWITCHING_PROTOCOLS {
        return Err(ConnectError::Refused(Box::new(answered.body(parts.clock()).await)));
    }
    match check_response::check(response, &answered.key, &parts.options.parts) {
        Ok(agreed) => Ok((answered, agreed)),
        Err(violation) => {
            let response = Box::new(answered.answer.response);
            Err(ConnectError::InvalidResponse { violation, response })
        }
    }
}

fn connection(
    parts: &Parts,
    dialled: Dialled,
    unread: Bytes,
    agreed: check_response::Agreed,
) -> Arc<Shared> {
    let options = &parts.options.parts;
    let deflation = agreed.deflate.map(|parameters| {
        let agreement = DeflateAgreement { parameters, reservation: None };
        Deflation::new(&options.deflate.clone().unwrap_or_default(), agreement, Role::Client)
    });
    let (peer_addr, subprotocol) = (dialled.peer_addr, agreed.subprotocol);
    let opened = Agreement { deflation, subprotocol, peer_addr, ..Agreement::default() };
    Shared::new(dialled.stream, unread, Role::Client, options.settings.clone(), opened)
}

impl Answered {
    /// The response with the beginning of its body.
    async fn body(mut self, clock: &Clock) -> HandshakeResponse {
        self.answer.read_body(&mut self.dialled.stream, clock).await
    }
}
