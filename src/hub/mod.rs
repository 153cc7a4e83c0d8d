//! The network and the Hugging Face hub: one address parser, one client, one cache; every transfer is bounded in time
//! and size, and nothing that a server says becomes a path unless it is a plain hash.

mod address;
#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod dataset;
pub(crate) mod download;
#[cfg(not(feature = "hub"))]
mod offline;
#[cfg(feature = "hub")]
mod settings;
mod timeouts;

pub use address::{Address, Kind, SCHEME};
#[cfg(feature = "hub")]
pub use dataset::{dataset_file, dataset_file_from};
#[cfg(not(feature = "hub"))]
pub use offline::dataset_file;
#[cfg(feature = "hub")]
pub use settings::Settings;
pub use timeouts::Timeouts;

#[cfg(feature = "hub")]
pub(crate) use cache::Repository;
#[cfg(feature = "hub")]
pub(crate) use client::{Client, Remote, open};
#[cfg(not(feature = "hub"))]
pub(crate) use offline::open;
