//! The way to a server: a socket, perhaps a tunnel, and TLS on top.

#[cfg(unix)]
use std::path::PathBuf;

use super::dial::{self, Dialled};
use super::proxy::Proxy;
use super::target::Target;
#[cfg(feature = "tls")]
use super::tls::ClientTls;
use crate::error::ConnectError;
use crate::runtime::Clock;
use crate::stream::Stream;

/// What is not the ordinary way.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    /// The URL of a proxy.
    pub(super) proxy: Option<String>,
    #[cfg(unix)]
    pub(super) unix_socket: Option<PathBuf>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
}

impl Route {
    /// Goes it, up to where the opening handshake can begin.
    pub(super) async fn go(&self, target: &Target, clock: &Clock) -> Result<Dialled, ConnectError> {
        let Dialled { mut stream, peer_addr } = self.dial(target, clock).await?;
        if target.is_secure {
            stream = encrypt(self, stream, &target.host).await?;
        }
        Ok(Dialled { stream, peer_addr })
    }

    async fn dial(&self, target: &Target, clock: &Clock) -> Result<Dialled, ConnectError> {
        #[cfg(unix)]
        if let Some(path) = &self.unix_socket {
            return dial::unix(path).await;
        }
        let Some(proxy) = &self.proxy else {
            return dial::tcp(&target.host, target.port, clock).await;
        };
        let proxy = Proxy::parse(proxy)?;
        let Dialled { mut stream, .. } = dial::tcp(&proxy.host, proxy.port, clock).await?;
        if proxy.is_secure {
            stream = encrypt(self, stream, &proxy.host).await?;
        }
        // The address is the proxy's, not that of whom we talk to.
        Ok(Dialled { stream: proxy.tunnel(stream, target, clock).await?, peer_addr: None })
    }
}

#[cfg(feature = "tls")]
async fn encrypt(route: &Route, stream: Stream, host: &str) -> Result<Stream, ConnectError> {
    let shared = match &route.tls {
        Some(tls) => Ok(tls.clone()),
        None => ClientTls::shared(),
    };
    let failed = |error| ConnectError::Tls {
        host: host.to_owned(),
        error: std::io::Error::other(error).into(),
    };
    shared.map_err(failed)?.encrypt(stream, host).await
}

#[cfg(not(feature = "tls"))]
fn encrypt(_: &Route, _: Stream, _: &str) -> std::future::Ready<Result<Stream, ConnectError>> {
    std::future::ready(Err(ConnectError::TlsMissing))
}
