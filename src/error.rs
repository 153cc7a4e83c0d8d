//! The one error type of the library; each kind has the exit code that scripts rely on.

use rhn_kernels::error::brief;
use std::path::{Path, PathBuf};

/// What can go wrong, by whose concern it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another rank of the same run failed, or is no longer there.
    #[error("{what}")]
    OtherRank {
        /// What is known of it.
        what: String,
        /// The other rank's exit code, where that has an error of its own and says so; so whichever process ends first gives
        /// the same one.
        code: Option<u8>,
    },
    /// A recipe, a flag or a setting that cannot be run. Exit code 2.
    #[error("{0}")]
    Config(String),
    /// A corpus, a text or a fetched file that cannot be used. Exit code 3.
    #[error("{}: {what}", path.display())]
    Data {
        /// The file, directory or address at fault.
        path: PathBuf,
        /// What was found, what was wanted, and what to do about it.
        what: String,
    },
    /// A checkpoint that is refused. Exit code 4.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// The file or directory at fault.
        path: PathBuf,
        /// What was found, what was wanted, and what to do about it.
        what: String,
    },
    /// A stored tensor that is missing or does not fit the model; the caller knows the file. Exit code 4.
    #[error("{name}: {what}")]
    Stored {
        /// The tensor's name.
        name: String,
        /// What was found, and what was wanted.
        what: String,
    },
    /// A checkpoint of a later version of this program. Exit code 4.
    #[error(
        "{}: has format {found}, this program reads {known}: a newer version of rhn wrote it; update rhn",
        path.display()
    )]
    Newer {
        /// The file that has the format.
        path: PathBuf,
        /// The format that it has.
        found: u64,
        /// The newest format that this program reads.
        known: u64,
    },
    /// A number that is not finite, after which an update was not applied, or a figure that cannot be. Exit code 5.
    #[error("step {step}: {what}")]
    NotFinite {
        /// The optimizer step, counted from 1.
        step: u64,
        /// Which number, and what it was.
        what: String,
    },
    /// The training loss has left its course; the run is saved. Exit code 5.
    #[error("step {step}: {what}")]
    Diverged {
        /// Steps of the run so far.
        step: u64,
        /// What was found, and what to do about it.
        what: String,
    },
    /// Another process works in the run's directory. Exit code 6.
    #[error("{}: in use by {holder}", path.display())]
    Busy {
        /// The run's directory.
        path: PathBuf,
        /// The process that holds the lock.
        holder: String,
    },
    /// A signal asked to stop. Exit code 128 and the signal's number.
    #[error("stopped by a signal")]
    Stopped {
        /// The exit code.
        code: u8,
    },
    /// Reading or writing failed. Exit code 1.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A tensor operation failed. Exit code 1.
    #[error("tensor operation failed: {}", brief(.0))]
    Tensor(#[from] candle_core::Error),
}

impl From<rhn_kernels::Error> for Error {
    fn from(error: rhn_kernels::Error) -> Self {
        match error {
            rhn_kernels::Error::Setting(what) => Self::Config(what),
            rhn_kernels::Error::Tensor(error) => Self::Tensor(error),
        }
    }
}

/// A result with the library's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit code where a number is not finite or has left its course.
    pub(crate) const NOT_FINITE: u8 = 5;

    /// A setting at fault.
    pub fn config(what: impl Into<String>) -> Self {
        Self::Config(what.into())
    }

    /// A corpus or text at fault.
    pub fn data(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// A checkpoint at fault.
    pub fn checkpoint(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// A stored tensor at fault.
    pub fn tensor(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Stored { name: name.into(), what: what.into() }
    }

    /// For `map_err`: names the file that a stored tensor at fault is in.
    pub fn in_file(path: impl AsRef<Path>) -> impl FnOnce(Self) -> Self {
        move |error| match error {
            Self::Stored { name, what } => Self::checkpoint(path, format!("tensor {name:?}: {what}")),
            other => other,
        }
    }

    /// For `map_err`: names the file that an operating-system error is about.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// The error of a rank that cannot go on because of another one, whose exit code is not known.
    pub(crate) fn other_rank(what: impl Into<String>) -> Self {
        Self::OtherRank { what: what.into(), code: None }
    }

    /// Whether `error` is only that another rank failed, which says why itself.
    pub fn is_said_by_another_rank(error: &anyhow::Error) -> bool {
        let of_another = |error: &Self| matches!(error, Self::OtherRank { code: Some(_), .. });
        error.chain().any(|cause| cause.downcast_ref().is_some_and(of_another))
    }

    /// The exit code of a process that ends with `error`: that of the first of these errors in its chain, 1 without one.
    pub fn exit_code_of(error: &anyhow::Error) -> u8 {
        error.chain().find_map(|cause| cause.downcast_ref::<Self>()).map_or(1, Self::exit_code)
    }

    /// Whether nothing is at fault: this rank or another was asked to stop, by a signal or a time limit.
    pub(crate) fn is_stop(&self) -> bool {
        match self {
            Self::Stopped { .. } => true,
            Self::OtherRank { code, .. } => code.is_none_or(|code| code > 128), // a time limit has no code
            _ => false,
        }
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Data { .. } => 3,
            Self::Checkpoint { .. } | Self::Stored { .. } | Self::Newer { .. } => 4,
            Self::NotFinite { .. } | Self::Diverged { .. } => Self::NOT_FINITE,
            Self::Busy { .. } => 6,
            Self::Stopped { code } => *code,
            Self::OtherRank { code, .. } => code.unwrap_or(1),
            Self::Io { .. } | Self::Tensor(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use rhn_kernels::error::brief;

    #[test]
    fn an_error_of_the_tensor_library_is_reported_without_its_backtrace() {
        let error = candle_core::Error::Msg("shapes differ".into()).bt().context("in the loss");
        assert_eq!(brief(&error), "in the loss: shapes differ");
        assert_eq!(Error::from(error).to_string(), "tensor operation failed: in the loss: shapes differ");
    }
}
