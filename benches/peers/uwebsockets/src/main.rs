//! uWebSockets 20 through `uwebsockets_rs` 0.0.11: its own C++ event loop on libuv, its own zlib.
//!
//! permessage-deflate without takeover, which it calls shared contexts, at zlib's default level 6; there
//! is no threshold. Its dedicated contexts would be takeover, but a mask that is tested wrongly turns
//! every size of them into the smallest, 9 bits. `/plain-deflate` compresses no answer. Answers to what
//! one read brought are written together: that is its way, and cannot be had otherwise.

use std::env;
use std::io::{self, Write};
use std::net::TcpListener;

use uwebsockets_rs::app::App;
use uwebsockets_rs::listen_socket::ListenSocket;
use uwebsockets_rs::us_socket_context_options::UsSocketContextOptions;
use uwebsockets_rs::websocket::Opcode;
use uwebsockets_rs::websocket_behavior::{CompressOptions, WebSocketBehavior};

/// As the other peers' (`../src/server.rs`).
const MAX_MESSAGE: u32 = 16 << 20;

fn main() -> io::Result<()> {
    let tls = UsSocketContextOptions {
        key_file_name: None,
        cert_file_name: None,
        passphrase: None,
        dh_params_file_name: None,
        ca_file_name: None,
        ssl_ciphers: None,
        ssl_prefer_low_memory_usage: None,
    };
    let mut app = App::new(tls);
    app.ws("/echo-deflate", echo(true)).ws("/plain-deflate", echo(false));
    let port = free_port()?;
    app.listen(port.into(), None::<fn(ListenSocket)>);
    println!("listening on http://127.0.0.1:{port}");
    io::stdout().flush()?;
    app.run();
    Ok(())
}

/// A port for the address in the first argument: the binding does not tell which one it got.
fn free_port() -> io::Result<u16> {
    let address = env::args().nth(1).unwrap_or_else(|| String::from("127.0.0.1:0"));
    Ok(TcpListener::bind(address)?.local_addr()?.port())
}

/// The library's defaults, but for the limits: beyond `max_backpressure` it drops messages.
fn echo(compresses: bool) -> WebSocketBehavior<false> {
    let deflater = u32::from(CompressOptions::SharedCompressor);
    let inflater = u32::from(CompressOptions::SharedDecompressor);
    WebSocketBehavior {
        compression: deflater | inflater,
        max_payload_length: MAX_MESSAGE,
        idle_timeout: 120,
        max_backpressure: 4 * MAX_MESSAGE,
        close_on_backpressure_limit: false,
        reset_idle_timeout_on_send: false,
        send_pings_automatically: true,
        max_lifetime: 0,
        upgrade: None,
        open: None,
        message: Some(Box::new(move |socket, message, opcode| {
            if matches!(opcode, Opcode::Text | Opcode::Binary) {
                socket.send_with_options(message, opcode, compresses, true);
            }
        })),
        ping: None,
        pong: None,
        close: None,
        drain: None,
        subscription: None,
    }
}
