//! How a weight lies in memory.

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// `(input, output)`.
    ByInput,
    /// `(output, input)`, as an embedding that is used for the output layer too.
    ByOutput,
}
