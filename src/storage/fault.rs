//! Faults on demand, for tests: the n-th change of the disk fails, or the process dies there.
//!
//! `RHN_FAULT=KIND@N`, counted from 1. `die` ends the process as a kill does; `eio` fails once; `enospc` fails all
//! that takes disk space from there on, since a full disk stays full. A build for release has none of it.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Actions that take no disk space.
const FREEING: [&str; 3] = ["cut", "rename", "remove"];

/// What happens instead of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Die,
    Eio,
    Enospc,
}

/// The fault to inject instead of this change, if there is one.
pub(crate) fn next(action: &str, path: &Path) -> Option<Fault> {
    if cfg!(not(debug_assertions)) {
        return None;
    }
    static PLAN: OnceLock<Option<(Fault, u64)>> = OnceLock::new();
    static CHANGES: AtomicU64 = AtomicU64::new(0);
    let plan = *PLAN.get_or_init(|| parse(&std::env::var("RHN_FAULT").ok()?));
    let (fault, number) = plan?;
    let now = CHANGES.fetch_add(1, Ordering::Relaxed) + 1;
    if now == number {
        eprintln!("fault {number}: {fault:?} instead of {action} {}", path.display());
    }
    let full = fault == Fault::Enospc && now >= number && !FREEING.contains(&action);
    (full || fault != Fault::Enospc && now == number).then_some(fault)
}

fn parse(text: &str) -> Option<(Fault, u64)> {
    let (kind, number) = text.split_once('@')?;
    let fault = match kind {
        "die" => Fault::Die,
        "eio" => Fault::Eio,
        "enospc" => Fault::Enospc,
        _ => return None,
    };
    Some((fault, number.parse().ok()?))
}

impl Fault {
    /// The error in place of the change; `die` ends the process.
    pub(crate) fn inject(self) -> io::Error {
        match self {
            Self::Die => std::process::abort(),
            Self::Eio => io::Error::from_raw_os_error(EIO),
            Self::Enospc => io::Error::from_raw_os_error(ENOSPC),
        }
    }
}
