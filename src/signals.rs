//! SIGINT, SIGTERM, SIGHUP and SIGUSR1, which `mpirun` hands on to its ranks and lets them end: the first asks a run to save and stop, a second ends the process at once.

use crate::error::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether, and by which signal, the run was asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Registers the handlers: from now on a first signal asks, and does not end the process.
    pub fn listen() -> Result<Self> {
        let asked = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] {
            let register = || -> std::io::Result<()> {
                let code = exit_code(signal);
                // In this order: a signal that comes meanwhile is noticed, and the second finds `again` set by the first.
                signal_hook::flag::register_usize(signal, asked.0.clone(), signal as usize)?;
                signal_hook::flag::register_conditional_shutdown(signal, code.into(), again.clone())?;
                signal_hook::flag::register(signal, again.clone())?;
                Ok(())
            };
            register().map_err(Error::io(Path::new("signal handler")))?;
        }
        Ok(asked)
    }

    /// Ignores SIGXFSZ, so that a file that may grow no more is an error of the write, which names the file.
    pub fn ignore_file_size_limit() -> Result<()> {
        #[cfg(unix)]
        signal_hook::flag::register(libc::SIGXFSZ, Arc::default())
            .map_err(Error::io(Path::new("signal handler")))?;
        Ok(())
    }

    /// The exit code of the signal that asked the run to stop.
    pub fn received(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(exit_code(signal as i32)),
        }
    }

    /// An error once the run was asked to stop.
    pub fn check(&self) -> Result<()> {
        match self.received() {
            None => Ok(()),
            Some(code) => Err(Error::Stopped { code }),
        }
    }
}

/// As shells have it: 128 and the signal's number.
fn exit_code(signal: i32) -> u8 {
    128 + signal as u8
}
