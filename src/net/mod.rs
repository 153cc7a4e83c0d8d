//! The network: bounded in time and size, and nothing that a server says becomes a path unless it is a plain hash.

#[cfg(feature = "hub")]
pub(crate) mod cache;
#[cfg(feature = "hub")]
pub(crate) mod client;
mod patience;
#[cfg(feature = "hub")]
mod settings;

pub use patience::Patience;
#[cfg(feature = "hub")]
pub use settings::Settings;
