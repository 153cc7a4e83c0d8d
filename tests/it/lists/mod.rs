//! Training on n-best lists.

mod parity;
mod runs;
