//! Code that the example servers share: the address, and the first line of output.

use tidewire::Server;

/// Serves on the address in the first argument, until SIGINT or SIGTERM.
pub(crate) async fn serve<State>(server: Server<State>) -> tidewire::Result<()>
where
    State: Clone + Send + Sync + 'static,
{
    let (scheme, port) = if server.is_secure() { ("https", 8443) } else { ("http", 8080) };
    let addr = std::env::args().nth(1).unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on {scheme}://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}
