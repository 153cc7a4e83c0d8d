//! How well a trained model predicts: perplexity of a split, with and without dropout, and surprisal of any text.

pub mod adapt;
mod evaluation;
pub mod images;
mod log_sum;
pub mod monte_carlo;
pub mod perplexity;
pub mod score;
mod tally;
pub mod words;

pub use evaluation::Evaluation;
pub use perplexity::{EvaluationProgress, Split, batched, stream};
