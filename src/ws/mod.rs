//! WebSocket: the protocol, and the connection that speaks it.

#[cfg(feature = "server")]
pub(crate) mod admission;
pub(crate) mod deflate;
pub(crate) mod handshake;
mod heartbeat;
pub(crate) mod message;
pub(crate) mod options;
pub(crate) mod proto;
mod rate_limit;

pub(crate) mod connection;
mod sender;
#[cfg(feature = "tungstenite")]
mod tungstenite;
#[cfg(feature = "server")]
pub(crate) mod upgrade;

#[cfg(feature = "server")]
pub use self::admission::ConnectionLimit;
#[cfg(feature = "tungstenite")]
pub use self::connection::HandOverError;
pub use self::connection::{
    CloseInfo, ConnectionId, Initiator, PreparedMessage, SlowConsumer, Stats, WebSocket,
};
pub use self::deflate::{DeflateBudget, DeflateOptions};
pub use self::handshake::HandshakeError;
pub use self::heartbeat::HeartbeatOptions;
pub use self::message::Message;
pub use self::options::WebSocketOptions;
pub use self::proto::{
    CloseCode, CloseFrame, DeflateAnswerError, DeflateParameters, Frame, FrameError,
    InvalidDeflateParameters, OpCode, ProtocolError, Role,
};
pub use self::rate_limit::RateLimit;
pub use self::sender::Sender;
#[cfg(feature = "tungstenite")]
pub use self::tungstenite::{BridgeStream, FromTungsteniteError, IntoTungsteniteError};
