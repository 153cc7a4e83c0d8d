//! Where text comes in: corpora are found or fetched, verified, split, and cut into tokens.

mod archive;
pub(crate) mod batch;
pub mod corpus;
pub(crate) mod data_directories;
mod directory;
mod fetch;
pub mod inspect;
pub mod registry;
pub mod split;
pub mod text;
pub mod tokenizer;
mod tokens;

pub use corpus::Corpus;
pub use data_directories::DataDirectories;
pub use text::Text;
pub use tokenizer::{Decoder, Encoded, Tokenizer};
pub use tokens::Tokens;
