//! The end of a stream that the caller has brought: it is closed before it is dropped, whatever ends the
//! connection. TLS of the caller says `close_notify` then (RFC 8446 §6.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_std::task;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use tidewire::frame::Role;
use tidewire::{Result, WebSocket, WebSocketOptions};

use crate::support::frames::{CLOSE, close, masked, plain};
use crate::support::peer::{Drive, Peer, within};
use crate::support::pipe::{End, Knobs, pipe};

/// A stream that tells how often it was closed, when it is dropped.
struct Brought {
    end: End,
    closes: usize,
    tell: Option<oneshot::Sender<usize>>,
}

impl AsyncRead for Brought {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.end).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brought {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.end).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closes += 1;
        Pin::new(&mut self.end).poll_close(cx)
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        let _ = self.tell.take().unwrap().send(self.closes);
    }
}

type Handler = fn(WebSocket) -> BoxFuture<'static, Result<()>>;

fn receives(mut ws: WebSocket) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        while ws.recv().await?.is_some() {}
        Ok(())
    })
}

fn closes(mut ws: WebSocket) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move { ws.close(1000, "").await.map(drop) })
}

fn returns(ws: WebSocket) -> BoxFuture<'static, Result<()>> {
    drop(ws);
    Box::pin(async { Ok(()) })
}

/// The peer's part of an end: the bytes it sends, and whether it ends the stream, too.
type Part = (Vec<u8>, bool);

/// Each end with what the handler does, and with the part of a peer whose frames are made by this.
fn ends(frame: fn(u8, Vec<u8>) -> Vec<u8>) -> [(&'static str, Handler, Part); 7] {
    let goodbye = frame(CLOSE, close(1000, ""));
    [
        ("the peer closes", receives, (goodbye.clone(), true)),
        ("the peer closes, and does not end the stream", receives, (goodbye.clone(), false)),
        ("the peer ends the stream", receives, (Vec::new(), true)),
        ("the peer breaks a rule", receives, (frame(0x83, Vec::new()), false)),
        ("we close, and the peer answers", closes, (goodbye, true)),
        ("we close, and the peer never answers", closes, (Vec::new(), false)),
        ("the handler returns", returns, (Vec::new(), false)),
    ]
}

#[test]
fn a_stream_of_the_caller_is_closed_once_at_every_end() {
    let options = WebSocketOptions::default().close_timeout(Duration::from_millis(100));
    for role in [Role::Server, Role::Client] {
        let frame: fn(u8, Vec<u8>) -> Vec<u8> = if role == Role::Server { masked } else { plain };
        for (end, handler, (bytes, ends_stream)) in ends(frame) {
            for drive in Drive::BOTH {
                let (stream, peer) = pipe(Knobs::default());
                let (tell, told) = oneshot::channel();
                let stream = Brought { end: stream, closes: 0, tell: Some(tell) };
                let mut peer = Some(Peer { end: peer });
                let closes = within(async {
                    peer.as_mut().unwrap().send(&bytes).await;
                    match drive {
                        Drive::Task => drop(task::spawn(WebSocket::run(
                            stream,
                            [].as_slice(),
                            role,
                            &options,
                            handler,
                        ))),
                        Drive::Caller => drop(task::spawn(handler(WebSocket::from_stream(
                            stream,
                            [].as_slice(),
                            role,
                            &options,
                        )))),
                    }
                    peer.take_if(|_| ends_stream);
                    told.await
                });
                assert_eq!(closes, Ok(1), "{end}, {role:?}, {drive:?}");
            }
        }
    }
}
