//! The client of async-tungstenite against our server, over TCP.

use async_std::net::TcpStream;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use async_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, client_async};
use futures::StreamExt;
use futures::channel::oneshot;
use tidewire::{RequestContext, Server, WebSocketOptions};

use crate::support::peer::within;
use crate::support::rng::Rng;
use crate::support::tcp::{bind, echo_server};

type Client = WebSocketStream<TcpStream>;

async fn connect(addr: std::net::SocketAddr) -> Client {
    let socket = TcpStream::connect(addr).await.unwrap();
    client_async(format!("ws://{addr}/"), socket).await.unwrap().0
}

async fn echo_client() -> Client {
    connect(bind(echo_server(WebSocketOptions::default()))).await
}

/// The next message, the last of which is a close frame; `None` at the end of the stream.
async fn next(client: &mut Client) -> Option<Message> {
    match client.next().await? {
        Ok(message) => Some(message),
        Err(Error::ConnectionClosed) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn messages_of_every_size_come_back() {
    within(async {
        let mut client = echo_client().await;
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let text = Message::text("é".repeat(size / 2));
            client.send(text.clone()).await.unwrap();
            assert_eq!(next(&mut client).await, Some(text), "{size}");
            let mut rng = Rng::new(1);
            let random = (0..size).map(|_| rng.next().to_be_bytes()[3]);
            let binary = Message::binary(random.collect::<Vec<u8>>());
            client.send(binary.clone()).await.unwrap();
            assert_eq!(next(&mut client).await, Some(binary), "{size}");
        }
        client.close(None).await.unwrap();
        assert_eq!(next(&mut client).await, Some(Message::Close(None)));
        assert_eq!(next(&mut client).await, None);
    });
}

#[test]
fn fragments_with_pings_between_them_come_back_as_one_message() {
    within(async {
        let mut client = echo_client().await;
        let data = |opcode, fin, payload: &str| {
            let payload = payload.to_owned();
            Message::Frame(Frame::message(payload.into_bytes(), OpCode::Data(opcode), fin))
        };
        client.send(data(Data::Text, false, "one, ")).await.unwrap();
        client.send(Message::Ping(b"p".as_slice().into())).await.unwrap();
        client.send(data(Data::Continue, false, "two, ")).await.unwrap();
        client.send(data(Data::Continue, true, "three")).await.unwrap();
        assert_eq!(next(&mut client).await, Some(Message::Pong(b"p".as_slice().into())));
        assert_eq!(next(&mut client).await, Some(Message::text("one, two, three")));
    });
}

#[test]
fn fragments_and_pings_of_the_server_are_understood() {
    within(async {
        let mut server = Server::new();
        let (tell, told) = oneshot::channel();
        let tell = std::sync::Mutex::new(Some(tell));
        server.get("/", move |mut ctx: RequestContext| {
            let tell = tell.lock().unwrap().take().unwrap();
            async move {
                use tidewire::frame::{Frame, OpCode};
                let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
                ws.send_frame(Frame::new(false, OpCode::Text, "one, ")).await?;
                ws.ping("p").await?;
                ws.send_frame(Frame::new(true, OpCode::Continuation, "two")).await?;
                let pong = ws.recv_frame().await?;
                let _ = tell.send(pong);
                ws.close(4321_u16, "enough").await?;
                Ok(())
            }
        });
        let mut client = connect(bind(server)).await;
        assert_eq!(next(&mut client).await, Some(Message::Ping(b"p".as_slice().into())));
        assert_eq!(next(&mut client).await, Some(Message::text("one, two")));
        let enough = CloseFrame { code: CloseCode::from(4321), reason: "enough".into() };
        assert_eq!(next(&mut client).await, Some(Message::Close(Some(enough))));
        assert_eq!(next(&mut client).await, None);
        let pong = told.await.unwrap().unwrap();
        assert_eq!(
            (pong.opcode(), pong.payload()),
            (tidewire::frame::OpCode::Pong, b"p".as_slice())
        );
    });
}

#[test]
fn close_codes_of_the_client_come_back() {
    within(async {
        for code in [1000, 1001, 1003, 1007, 1011, 3000, 4999] {
            let mut client = echo_client().await;
            let frame = CloseFrame { code: CloseCode::from(code), reason: "bye".into() };
            client.close(Some(frame)).await.unwrap();
            let answer = CloseFrame { code: CloseCode::from(code), reason: "".into() };
            assert_eq!(next(&mut client).await, Some(Message::Close(Some(answer))));
            assert_eq!(next(&mut client).await, None);
        }
    });
}

#[test]
fn a_violation_of_the_client_is_told_to_it() {
    within(async {
        let mut client = echo_client().await;
        let mut header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..Default::default() };
        header.rsv1 = true;
        let frame = Frame::from_payload(header, b"x".as_slice().into());
        client.send(Message::Frame(frame)).await.unwrap();
        let Some(Message::Close(Some(close))) = next(&mut client).await else {
            panic!("no close frame");
        };
        assert_eq!(close.code, CloseCode::Protocol);

        let mut client = echo_client().await;
        let orphan = Frame::message(b"x".as_slice(), OpCode::Data(Data::Continue), true);
        client.send(Message::Frame(orphan)).await.unwrap();
        let Some(Message::Close(Some(close))) = next(&mut client).await else {
            panic!("no close frame");
        };
        assert_eq!(close.code, CloseCode::Protocol);
    });
}

#[test]
fn many_clients_are_served_at_once() {
    within(async {
        let addr = bind(echo_server(WebSocketOptions::default()));
        let clients = (0..50).map(|number| async move {
            let mut client = connect(addr).await;
            for message in 0..20 {
                let text = Message::text(format!("{number} {message}"));
                client.send(text.clone()).await.unwrap();
                assert_eq!(next(&mut client).await, Some(text));
            }
            client.close(None).await.unwrap();
            while next(&mut client).await.is_some() {}
        });
        futures::future::join_all(clients).await;
    });
}
