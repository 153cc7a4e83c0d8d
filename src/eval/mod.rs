//! How well a trained model predicts: perplexity of a split, with and without dropout, and surprisal of any text.

pub mod images;
pub mod monte_carlo;
pub mod perplexity;
pub mod score;
mod tally;
pub mod words;

pub use perplexity::{Evaluation, EvaluationProgress, Split, batched, stream};
