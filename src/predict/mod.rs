//! A trained model at work: reading text window by window or token by token, with the state carried along.

mod dropout;
mod loaded;
mod reader;
mod tokens;
mod windows;

pub use dropout::{DropoutPasses, Masked, PassesRead};
pub use loaded::{Loaded, LoadedVae};
pub(crate) use loaded::{begun_from, corpus_sha256};
pub use reader::Reader;
pub use tokens::TokenReader;
pub use windows::{STREAM_STEPS, WindowReader};

#[cfg(test)]
pub(crate) mod tiny;
