//! What can go wrong in a kernel.

/// A request that cannot be computed, or a failure of the tensor library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A size, a device or a thread count that cannot be used; the text says what was found and what was wanted.
    #[error("{0}")]
    Setting(String),
    /// A tensor operation failed.
    #[error("tensor operation failed: {}", brief(.0))]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// [`Error::Setting`] with this text.
    pub fn setting(what: impl Into<String>) -> Self {
        Self::Setting(what.into())
    }
}

/// A result with this package's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A tensor library's error in one line, without the backtrace that its text carries.
pub fn brief(error: &candle_core::Error) -> String {
    use candle_core::Error as Tensor;
    match error {
        Tensor::WithBacktrace { inner, .. } => brief(inner),
        Tensor::Context { inner, context } => format!("{context}: {}", brief(inner)),
        other => other.to_string().lines().next().unwrap_or_default().to_string(),
    }
}
