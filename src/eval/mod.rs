//! What a trained model is worth: perplexity of a split, with and without dropout, and surprisal of any text.

pub mod monte_carlo;
pub mod perplexity;
pub mod score;

pub use perplexity::{Evaluation, Split, batched, stream};
