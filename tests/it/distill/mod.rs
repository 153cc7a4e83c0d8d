//! Students that learn from teachers, and weights that learn alone.

mod adaptation;
mod parity;
mod runs;
