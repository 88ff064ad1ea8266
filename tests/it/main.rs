//! The crate from outside: what a peer sees, and what a handler sees.

// `cfg(test)` tells clippy that the helpers are tests, too.
#[cfg(feature = "client")]
#[cfg(test)]
mod client;

#[cfg(test)]
mod executors;

// It reads `/proc`.
#[cfg(target_os = "linux")]
#[cfg(test)]
mod faults;

#[cfg(test)]
mod guide;

#[cfg(test)]
mod http;

#[cfg(test)]
mod panics;

#[cfg(feature = "tls")]
#[cfg(test)]
mod tls;

#[cfg(test)]
mod seeds;

#[cfg(test)]
mod support;

#[cfg(feature = "testing")]
#[cfg(test)]
mod testing;

#[cfg(test)]
mod ws;
