//! Where text comes in: corpora are found or fetched, verified, split, and cut into tokens.

mod archive;
pub(crate) mod batch;
pub mod chosen;
pub mod corpus;
pub(crate) mod data_directories;
mod directory;
mod documents;
pub(crate) mod drawn;
pub mod edits;
mod fetch;
pub mod images;
pub mod inspect;
pub mod items;
pub mod labelled;
pub(crate) mod lengths;
pub mod made_lists;
pub mod packed;
pub(crate) mod packing;
pub mod registry;
pub(crate) mod sentences;
pub mod shards;
pub mod split;
mod stream;
pub mod text;
pub mod tokenizer;
mod tokens;

pub use chosen::{Chosen, SplitName, TrainedOn};
pub use corpus::Corpus;
pub use data_directories::DataDirectories;
pub use shards::ShardedCorpus;
pub use stream::TextStream;
pub use text::Text;
pub(crate) use tokenizer::{Characters, spelled};
pub use tokenizer::{Decoder, Encoded, Extent, Extents, Piece, Tokenizer};
pub(crate) use tokens::TokenSource;
pub use tokens::Tokens;
