//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use crate::deflate::{Deflate, Direction};
use crate::json;

pub(crate) const USAGE: &str = "\
usage: load echo|idle|handshake|http|fanout --address HOST:PORT[,…] [--path /echo] [--pid PID]
                    (connections go to one address after the other)
  --connections N   sockets (handshake: at the same time)          64
  --bytes N         payload of a message, or body of an answer     16
  --in-flight N     messages under way per connection               1
                    (fanout: what each sender says at once)
  --senders N       connections that say something (fanout)         1
  --stuck N         more connections, which never read (fanout)     0
  --seconds S       length of the measurement                       3
  --warm-up S       time before it                                  1
  --messages N      measure so many messages instead of a time
  --text            text messages instead of binary ones
  --json            different JSON messages instead of the same letters again and again
  --deflate D       offers permessage-deflate and compresses `both` ways, only what goes `in` to the
                    server, or only what comes `out` of it (echo, idle and fanout)
  --takeover        with context takeover, which is given up in the offer otherwise (echo and idle)
  --tls             a TLS 1.3 handshake in full first, whatever the certificate (handshake)
  --gate            print `ready`, then wait for a line on stdin before measuring, and at the end
  --spin            never sleep in epoll (the server then pays for no wake-ups of the client)";

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Echo,
    Idle,
    Handshake,
    Http,
    Fanout,
}

/// What messages consist of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Content {
    /// Letters, and the others say that they are text.
    Binary,
    Text,
    Json,
}

/// The command line, with its defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) path: String,
    /// The server's process, if its costs are wanted.
    pub(crate) pid: Option<u32>,
    pub(crate) connections: usize,
    pub(crate) bytes: usize,
    pub(crate) in_flight: u32,
    pub(crate) senders: usize,
    pub(crate) stuck: usize,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    /// Overrides `duration`.
    pub(crate) messages: Option<u64>,
    pub(crate) content: Content,
    pub(crate) deflate: Option<Deflate>,
    pub(crate) tls: bool,
    pub(crate) gate: bool,
    pub(crate) spin: bool,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mode = match words.next().as_deref() {
            Some("echo") => Mode::Echo,
            Some("idle") => Mode::Idle,
            Some("handshake") => Mode::Handshake,
            Some("http") => Mode::Http,
            Some("fanout") => Mode::Fanout,
            other => return Err(format!("no mode called {other:?}")),
        };
        let (mut direction, mut takeover) = (None, false);
        let mut args = Self {
            mode,
            addresses: Vec::new(),
            path: String::from("/echo"),
            pid: None,
            connections: 64,
            bytes: 16,
            in_flight: 1,
            senders: 1,
            stuck: 0,
            duration: Duration::from_secs(3),
            warm_up: Duration::from_secs(1),
            messages: None,
            content: Content::Binary,
            deflate: None,
            tls: false,
            gate: false,
            spin: false,
        };
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or(format!("{option} wants a value"));
            match option.as_str() {
                "--address" => {
                    let addresses = value()?.split(',').map(number).collect::<Result<_, _>>()?;
                    args.addresses = addresses;
                }
                "--path" => args.path = value()?,
                "--pid" => args.pid = Some(number(&value()?)?),
                "--connections" => args.connections = number(&value()?)?,
                "--bytes" => args.bytes = number(&value()?)?,
                "--in-flight" => args.in_flight = number(&value()?)?,
                "--senders" => args.senders = number(&value()?)?,
                "--stuck" => args.stuck = number(&value()?)?,
                "--seconds" => args.duration = seconds(&value()?)?,
                "--warm-up" => args.warm_up = seconds(&value()?)?,
                "--messages" => args.messages = Some(number(&value()?)?),
                "--text" => args.content = Content::Text,
                "--json" => args.content = Content::Json,
                "--deflate" => direction = Some(Direction::parse(&value()?)?),
                "--takeover" => takeover = true,
                "--tls" => args.tls = true,
                "--gate" => args.gate = true,
                "--spin" => args.spin = true,
                _ => return Err(format!("no option called {option}")),
            }
        }
        args.deflate = direction.map(|direction| Deflate { direction, takeover });
        args.check().map(|()| args)
    }

    /// The address of a connection: servers with a loop per thread have one for each.
    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        self.addresses[number % self.addresses.len()]
    }

    /// Do the options go together?
    fn check(&self) -> Result<(), String> {
        if self.addresses.is_empty() {
            return Err(String::from("--address is missing"));
        }
        if self.connections == 0 || self.in_flight == 0 {
            return Err(String::from("--connections and --in-flight begin at 1"));
        }
        if self.senders == 0 || self.senders > self.connections {
            return Err(String::from("--senders are some of the --connections"));
        }
        if self.content == Content::Json && self.bytes < json::SHORTEST {
            return Err(format!("--json begins at {} bytes", json::SHORTEST));
        }
        if self.deflate.is_some() && matches!(self.mode, Mode::Handshake | Mode::Http) {
            return Err(String::from("--deflate is for echo, idle and fanout"));
        }
        if self.deflate.is_some_and(|it| it.takeover) && matches!(self.mode, Mode::Fanout) {
            return Err(String::from("--takeover is for echo and idle"));
        }
        if self.tls && !matches!(self.mode, Mode::Handshake) {
            return Err(String::from("--tls is for handshake"));
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("cannot read {text:?}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number(text)?).map_err(|_| format!("cannot wait {text} seconds"))
}
