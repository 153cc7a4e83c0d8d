//! How the ranks of a command are started and found: by `mpirun` or `srun`, which tell each process in its environment.

use super::world::{Solo, World};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Variables by which Open MPI, PMI and Slurm tell a process how many were started together.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Variables by which they tell how many of them are on its machine.
const LOCAL_SIZES: [&str; 2] = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"];

fn number(names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// How many processes were started together.
fn started() -> usize {
    number(&SIZES).unwrap_or(1)
}

/// Whether this rank prints nothing but its errors.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Whether this rank prints nothing but its errors: rank 0 prints what is the same on all.
pub fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// The ranks that this process was started among; call it once. From now on rank 0 alone prints.
///
/// # Errors
/// If there are several, and this program was built without what connects them.
pub fn open() -> Result<Arc<dyn World>> {
    match started() {
        0 | 1 => Ok(Arc::new(Solo)),
        #[cfg(feature = "mpi")]
        _ => {
            let world = super::mpi::Mpi::start()?;
            IS_QUIET.store(world.rank() > 0, Ordering::Relaxed);
            Ok(Arc::new(world))
        }
        #[cfg(not(feature = "mpi"))]
        size => Err(Error::config(format!(
            "{size} processes were started together, and this rhn was built without what connects them: build it with \
             `cargo install --path . --features mpi`, or start one"
        ))),
    }
}

/// Refuses several processes for `what`, which does not share work among them.
pub fn refuse_ranks(what: &str) -> Result<()> {
    match started() {
        0 | 1 => Ok(()),
        size => Err(Error::config(format!(
            "{size} processes were started together, and {what} is work for one: `rhn train` and `rhn sweep` share theirs \
             among several"
        ))),
    }
}

/// Variables by which they tell which of its machine's ranks a process is.
const LOCAL_RANKS: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];

/// Which of the ranks on its machine this process is, counted from 0; 0 where it is alone.
pub fn local_rank() -> usize {
    if started() > 1 { number(&LOCAL_RANKS).unwrap_or(0) } else { 0 }
}

/// Threads of this process where it shares its machine with other ranks: its part of the cores, or those that it is bound
/// to, if they are fewer. `None` where it shares it with none.
pub fn local_threads() -> Option<usize> {
    let ranks = number(&LOCAL_SIZES).filter(|&ranks| ranks > 1)?;
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Some(available.min(cores() / ranks).max(1))
}

/// Cores of the machine, whichever this process is bound to.
fn cores() -> usize {
    #[expect(unsafe_code, reason = "the standard library counts the cores that the process is bound to")]
    // SAFETY: it reads a setting of the system.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1).max(1)
}
