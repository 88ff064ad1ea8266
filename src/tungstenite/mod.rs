//! The bridge to async-tungstenite, for code that uses its types: conversions of values, and of whole
//! connections, in both directions.

// | file | holds |
// | --- | --- |
// | `convert` | messages, close frames and close codes |
// | `into`, `from` | a connection that goes to async-tungstenite, or comes from there |
// | `stream`, `frame_tracker` | the stream below such a connection, and the limits of the frames in it |

mod convert;
mod frame_tracker;
mod from;
mod into;
mod stream;

/// async-tungstenite, for the types of a hand-over.
pub use async_tungstenite;

pub use self::from::FromTungsteniteError;
pub use self::into::IntoTungsteniteError;
pub use self::stream::BridgeStream;
pub use crate::connection::HandOverError;
