//! What a run leaves on disk: whole, or refused. See `directory` for the protocol of writing and reading.

mod directory;
#[cfg(feature = "hub")]
pub mod fetch;
mod open;
mod resolve;
mod state;
mod statistics;

pub(crate) use directory::{PENDING, published_manifest};
pub use directory::{publish, recover};
pub(crate) use open::is_exported;
#[cfg(feature = "serve")]
pub(crate) use open::no_language_model;
pub use open::{Checkpoint, parse_config};
pub use resolve::resolve;
pub(crate) use state::newest_recipe;
pub use state::{Found, Rejected, SavedState, load_newest, save};
pub use statistics::Statistics;
