//! Chapters of the documentation. This module has no code.

#[doc = include_str!("building.md")]
pub mod building {}

#[doc = include_str!("blocking.md")]
pub mod blocking {}

#[doc = include_str!("options.md")]
pub mod options {}

#[doc = include_str!("cancel_safety.md")]
pub mod cancel_safety {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("logs.md")]
pub mod logs {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}
