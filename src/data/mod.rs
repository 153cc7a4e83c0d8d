//! Where text comes in: corpora are found or fetched, verified, split, and cut into tokens.

pub mod archive;
pub mod batch;
pub mod corpus;
mod directory;
pub mod fetch;
pub mod inspect;
pub mod places;
pub mod registry;
pub mod split;
pub mod text;
pub mod tokenizer;
pub mod tokens;

pub use corpus::Corpus;
pub use places::Places;
pub use text::Text;
pub use tokenizer::{Decoder, Encoded, Tokenizer};
pub use tokens::Tokens;
