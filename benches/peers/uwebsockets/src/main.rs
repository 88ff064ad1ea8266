//! uWebSockets 20 through `uwebsockets_rs` 0.0.11: its own C++ event loop on libuv, its own zlib.
//!
//! Each thread has an app, a loop and a port of its own, for the binding cannot hand a socket to another
//! loop, and the kernel spreads the connections of one port at random. All addresses are announced.
//!
//! `/echo` has no compression. Elsewhere it is permessage-deflate without takeover, which the library
//! calls shared contexts, at zlib's default level 6; there is no threshold. Its dedicated contexts would be
//! takeover, but a mask that is tested wrongly turns every size of them into the smallest, 9 bits.
//! `/plain-deflate` compresses no answer. Answers to what one read brought are written together: that is
//! its way, and cannot be had otherwise.

use std::env;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier};
use std::thread;

use uwebsockets_rs::app::App;
use uwebsockets_rs::listen_socket::ListenSocket;
use uwebsockets_rs::us_socket_context_options::UsSocketContextOptions;
use uwebsockets_rs::websocket::Opcode;
use uwebsockets_rs::websocket_behavior::{CompressOptions, WebSocketBehavior};

/// As the other peers' (`../src/server.rs`).
const MAX_MESSAGE: u32 = 16 << 20;

fn main() -> io::Result<()> {
    let ports = free_ports()?;
    let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let all_listen = Arc::new(Barrier::new(ports.len() + 1));
    let spawn = |port| {
        let all_listen = Arc::clone(&all_listen);
        thread::spawn(move || serve(port, &all_listen))
    };
    let loops: Vec<_> = ports.into_iter().map(spawn).collect();
    all_listen.wait();
    println!("listening on http://{}", addresses.join(","));
    io::stdout().flush()?;
    loops.into_iter().try_for_each(|it| it.join().map_err(|_| io::Error::other("a loop panicked")))
}

/// One loop, which the library keeps for the thread it is called on.
fn serve(port: u16, all_listen: &Barrier) {
    let tls = UsSocketContextOptions {
        key_file_name: None,
        cert_file_name: None,
        passphrase: None,
        dh_params_file_name: None,
        ca_file_name: None,
        ssl_ciphers: None,
        ssl_prefer_low_memory_usage: None,
    };
    let disabled = u32::from(CompressOptions::Disabled);
    let shared = u32::from(CompressOptions::SharedCompressor)
        | u32::from(CompressOptions::SharedDecompressor);
    let mut app = App::new(tls);
    app.ws("/echo", echo(disabled, false))
        .ws("/echo-deflate", echo(shared, true))
        .ws("/plain-deflate", echo(shared, false));
    app.listen(port.into(), None::<fn(ListenSocket)>);
    all_listen.wait();
    app.run();
}

/// Ports for the address in the first argument, one for each of `PEER_THREADS`: the binding does not tell
/// which one it got.
fn free_ports() -> io::Result<Vec<u16>> {
    let address = env::args().nth(1).unwrap_or_else(|| String::from("127.0.0.1:0"));
    let threads = env::var("PEER_THREADS").map_or(Ok(1), |count| count.parse());
    let threads: usize = threads.map_err(io::Error::other)?;
    // All at once, so that they differ.
    let listeners: Vec<_> =
        (0..threads).map(|_| TcpListener::bind(&address)).collect::<io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The library's defaults, but for the limits: beyond `max_backpressure` it drops messages.
fn echo(compression: u32, compresses: bool) -> WebSocketBehavior<false> {
    WebSocketBehavior {
        compression,
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
