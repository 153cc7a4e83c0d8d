//! Sequences of different lengths side by side, `(time, batch, size)`, whose steps past their ends are padding.

mod maximum;
mod reversed;

pub use maximum::maximum;
pub use reversed::reversed;
