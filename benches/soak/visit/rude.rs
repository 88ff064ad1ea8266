//! Visitors that do not speak WebSocket, or break off.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use async_io::Async;
use fastrand::Rng;
use futures::{AsyncReadExt, AsyncWriteExt};
use socket2::SockRef;

use crate::Problem;

const OPENING: &str = "GET /heartbeat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Masked, "Hello".
const HELLO: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

/// Does not answer pings, until the server gives it up.
pub(super) async fn mute(addr: SocketAddr) -> Result<(), Problem> {
    let mut stream = Async::<TcpStream>::connect(addr).await?;
    stream.write_all(OPENING.as_bytes()).await?;
    let mut said = Vec::new();
    // The deadline of the visit limits this wait.
    stream.read_to_end(&mut said).await?;
    if !said.starts_with(b"HTTP/1.1 101 ") {
        return Err(format!("not upgraded: {}", String::from_utf8_lossy(&said)).into());
    }
    Ok(())
}

/// Asks for the server's metrics over HTTP.
pub(super) async fn metrics(addr: SocketAddr) -> Result<(), Problem> {
    let mut stream = Async::<TcpStream>::connect(addr).await?;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(format!("no metrics: {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(())
}

/// Breaks off at some point before the first message, or sends noise after it.
pub(super) async fn reset(rng: &mut Rng, addr: SocketAddr) -> Result<(), Problem> {
    let mut stream = Async::<TcpStream>::connect(addr).await?;
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(64).collect();
    let all = [OPENING.as_bytes(), &HELLO, &noise].concat();
    let part = all.split_at(rng.usize(..=all.len())).0;
    stream.write_all(part).await?;
    if part.len() >= OPENING.len() && rng.bool() {
        // At least the status has arrived.
        stream.read_exact(&mut [0; 12]).await?;
    }
    SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO))?;
    Ok(())
}
