//! What lies between a client and the server, and what can be wrong with it.

use std::fmt;
use std::sync::Arc;

use super::pipe::{End, Side, Wires, with};
use crate::sync::Mutex;

/// The line that connections go over: how wide it is, and its faults.
///
/// [`TestClient::over`](super::TestClient::over) sends connections over a line of the test's own;
/// without it each has one to itself, which delivers everything at once. Clones are the same line.
///
/// ```
/// use tidewire::testing::{Line, TestClient};
/// # use tidewire::{RequestContext, Server, WebSocketOptions};
///
/// # async_std::task::block_on(async {
/// # let mut server = Server::new();
/// # server.get("/ws", |mut ctx: RequestContext| async move {
/// #     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
/// #     while let Some(message) = ws.recv().await? {
/// #         ws.send(message).await?;
/// #     }
/// #     Ok(())
/// # });
/// let client = TestClient::new(&server);
/// let line = Line::new().chunk_size(1);
/// let mut ws = client.over(&line).connect("/ws").await?;
/// ws.send("byte for byte").await?;
/// assert_eq!(ws.recv().await?, Some("byte for byte".into()));
///
/// line.cut();
/// assert!(ws.recv().await.is_err());
/// client.idle().await;
/// # Ok::<(), tidewire::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Line {
    wires: Arc<Mutex<Wires>>,
}

impl Line {
    /// A line that delivers everything at once, and holds 64 KiB in each direction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Most bytes that one read or one write of either side moves. Default: as many as there are.
    ///
    /// Each chunk arrives on its own: whoever reads on, or writes on, has to wait in between.
    #[must_use]
    pub fn chunk_size(self, bytes: usize) -> Self {
        self.with(|wires| wires.chunk_size = Some(bytes.max(1)));
        self
    }

    /// Bytes that a connection holds in each direction, beyond which writes wait for the other side
    /// to read. Default 64 KiB.
    #[must_use]
    pub fn capacity(self, bytes: usize) -> Self {
        self.with(|wires| wires.capacity = bytes.max(1));
        self
    }

    /// Has the client read nothing any more, and the server find no room to write, as if the buffers
    /// of both were full. What the client sends still arrives.
    ///
    /// It is so for connections that are opened later, too, until [`release`](Self::release).
    pub fn stall(&self) {
        self.with(|wires| {
            wires.is_stalled = true;
            wires.wake();
        });
    }

    /// Ends what [`stall`](Self::stall) has begun. Nothing was lost.
    pub fn release(&self) {
        self.with(|wires| {
            wires.is_stalled = false;
            wires.wake();
        });
    }

    /// Resets the connections that are open: what is on its way is lost, and reads and writes of both
    /// sides fail with [`ConnectionReset`](std::io::ErrorKind::ConnectionReset).
    pub fn cut(&self) {
        self.with(Wires::reset);
    }

    /// Ends the client's direction of the connections that are open, as a FIN does: the server reads
    /// what is on its way, and then the end of the stream. The client can still read.
    ///
    /// A connection of which the client is dropped ends in the same way, in both directions.
    pub fn end(&self) {
        self.with(Wires::end);
    }

    /// A new connection: the end of the client, and that of the server.
    pub(super) fn connect(&self) -> (End, End) {
        let key = self.with(Wires::open);
        let end = |side| End::new(Arc::clone(&self.wires), key, side);
        (end(Side::Client), end(Side::Server))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Wires) -> T) -> T {
        with(&self.wires, change)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chunk_size, capacity, is_stalled) =
            self.with(|wires| (wires.chunk_size, wires.capacity, wires.is_stalled));
        f.debug_struct("Line")
            .field("chunk_size", &chunk_size)
            .field("capacity", &capacity)
            .field("is_stalled", &is_stalled)
            .finish_non_exhaustive()
    }
}
