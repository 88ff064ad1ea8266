//! What `WebSocket::stats` counts of control frames and compression.

use futures::channel::oneshot;
use tidewire::WebSocketOptions;
use tidewire::frame::{Frame, OpCode};

use crate::support::frames::{BINARY, CLOSE, PING, PONG, TEXT, masked};
use crate::support::peer::{serve, within};

#[test]
fn pings_pongs_and_compressed_messages_are_counted_in_both_directions() {
    within(async {
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let options = WebSocketOptions::default().agreed_deflate(answer.parse().unwrap());
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options, |mut ws| async move {
            ws.ping("ours").await?;
            ws.send("x".repeat(1000)).await?;
            ws.send("short").await?;
            // One message in two frames.
            ws.send_frame(Frame::new(false, OpCode::Text, "He").compressed()).await?;
            ws.send_frame(Frame::new(true, OpCode::Continuation, "llo")).await?;
            while ws.recv().await?.is_some() {}
            let _ = tell.send(ws.stats());
            Ok(())
        });
        let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        let sent = [
            masked(TEXT | 0x40, hello),
            masked(BINARY, "plain"),
            masked(0x01 | 0x40, &hello[..3]),
            masked(PING, "theirs"),
            masked(0x80, &hello[3..]),
            masked(PONG, "ours"),
            masked(PONG, "unasked"),
            masked(CLOSE, ""),
        ];
        peer.send(sent.concat()).await;
        let stats = told.await.unwrap();
        assert_eq!((stats.messages_in, stats.compressed_in), (3, 2));
        assert_eq!((stats.messages_out, stats.compressed_out), (3, 2));
        assert_eq!((stats.pings_in, stats.pongs_out), (1, 1));
        assert_eq!((stats.pings_out, stats.pongs_in), (1, 2));
        assert_eq!(stats.rtt, None);
    });
}
