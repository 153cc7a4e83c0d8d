//! Classification of sentences: against PyTorch and finite differences, from labelled files to a result, resumed to the bit.

mod model;
mod runs;
