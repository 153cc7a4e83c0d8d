//! Ranks that MPI connects.
//!
//! One thread communicates with the other ranks, for MPI is initialized for one thread, so that sums go on while the others compute. It is
//! asked for one thing after another; since all ranks ask for the same, they meet. While it waits it looks again and again,
//! with ever longer pauses, as waiting by MPI's own means would keep a core busy that others compute on.
//!
//! Errors of MPI end the process, and `mpirun` then ends the others; so does the end of a process in any other way before
//! all are done. Hence nothing here has an error of its own but the end of the thread.

use super::world::{Numbers, Sum, World, disconnected, wait};
use crate::error::{Error, Result};
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::request::{Request, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence};
use mpi::{Threading, environment};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Looks between which nothing is done: a message within the machine takes a microsecond.
const BUSY_LOOKS: u32 = 200;

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_micros(200);

/// What the thread is asked for, and where the answer goes.
enum Job {
    Sum(Numbers, Sender<Numbers>),
    Gather(Vec<u8>, Sender<Vec<Vec<u8>>>),
    Any(u8, Sender<u8>),
}

/// The ranks that were started together.
pub(super) struct Mpi {
    size: usize,
    rank: usize,
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Whether someone waits for an answer and can do nothing else.
    is_awaited: Arc<AtomicBool>,
}

impl Mpi {
    /// Connects to the other ranks.
    ///
    /// # Errors
    /// If MPI does not start.
    pub(super) fn start() -> Result<Self> {
        let (jobs, asked) = channel();
        let (tell, told) = channel();
        let is_awaited = Arc::new(AtomicBool::new(false));
        let awaited = is_awaited.clone();
        let thread = std::thread::Builder::new().name("ranks".into()).spawn(move || {
            let Some((universe, _)) = environment::initialize_with_threading(Threading::Funneled) else {
                return;
            };
            let world = universe.world();
            let is_told = tell.send((world.size() as usize, world.rank() as usize)).is_ok();
            if is_told {
                Connection { world, is_awaited: awaited }.answer(&asked);
            }
        });
        let thread = thread.map_err(Error::io("the thread of the ranks"))?;
        let (size, rank) = told
            .recv()
            .map_err(|_| Error::other_rank("MPI was started before in this process, or does not start"))?;
        Ok(Self { size, rank, jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)), is_awaited })
    }

    fn ask<T>(&self, job: impl FnOnce(Sender<T>) -> Job) -> Result<Receiver<T>> {
        let (answer, receiver) = channel();
        let jobs = self.jobs.lock().expect("nobody panicked");
        let sent = jobs.as_ref().map(|jobs| jobs.send(job(answer)));
        if !matches!(sent, Some(Ok(()))) {
            return Err(disconnected());
        }
        Ok(receiver)
    }

    fn await_answer<T>(&self, job: impl FnOnce(Sender<T>) -> Job) -> Result<T> {
        wait(&self.ask(job)?, &self.is_awaited)
    }
}

impl World for Mpi {
    fn size(&self) -> usize {
        self.size
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn begin_sum(&self, numbers: Numbers) -> Result<Sum> {
        Ok(Sum::Coming(self.ask(|answer| Job::Sum(numbers, answer))?, self.is_awaited.clone()))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.await_answer(|answer| Job::Gather(bytes, answer))
    }

    fn any(&self, flags: u8) -> Result<u8> {
        self.await_answer(|answer| Job::Any(flags, answer))
    }

    fn close(&self) -> Result<()> {
        drop(self.jobs.lock().expect("nobody panicked").take());
        let thread = self.thread.lock().expect("nobody panicked").take();
        thread.map_or(Ok(()), JoinHandle::join).map_err(|_| disconnected())
    }
}

/// What the thread has.
struct Connection {
    world: SimpleCommunicator,
    is_awaited: Arc<AtomicBool>,
}

impl Connection {
    /// Does what it is asked for until nobody asks any more; then waits for the other ranks.
    fn answer(&self, asked: &Receiver<Job>) {
        for job in asked {
            // Whoever asked may have ended; the other ranks wait for this one's part all the same.
            match job {
                Job::Sum(Numbers::F32(numbers), answer) => {
                    let _ = answer.send(Numbers::F32(self.sum(&numbers)));
                }
                Job::Sum(Numbers::F64(numbers), answer) => {
                    let _ = answer.send(Numbers::F64(self.sum(&numbers)));
                }
                Job::Gather(bytes, answer) => {
                    let _ = answer.send(self.gather(&bytes));
                }
                Job::Any(flags, answer) => {
                    let _ = answer.send(self.reduce(&[flags], SystemOperation::bitwise_or())[0]);
                }
            }
        }
        self.reduce(&[0u8], SystemOperation::bitwise_or());
    }

    fn sum<T: Equivalence + Clone + Default>(&self, numbers: &[T]) -> Vec<T> {
        self.reduce(numbers, SystemOperation::sum())
    }

    fn reduce<T: Equivalence + Clone + Default>(&self, numbers: &[T], operation: SystemOperation) -> Vec<T> {
        let mut reduced = vec![T::default(); numbers.len()];
        scope(|scope| {
            self.wait(self.world.immediate_all_reduce_into(scope, numbers, &mut reduced[..], operation));
        });
        reduced
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let size = self.world.size() as usize;
        let mut lengths = vec![0i64; size];
        let length = [bytes.len() as i64];
        scope(|scope| {
            self.wait(self.world.immediate_all_gather_into(scope, &length[..], &mut lengths[..]));
        });
        let total: i64 = lengths.iter().sum();
        assert!(
            total <= i64::from(i32::MAX),
            "{total} bytes in one message between ranks, MPI counts to 2 GiB"
        );
        if total == 0 {
            return vec![Vec::new(); size]; // Open MPI refuses a gathering of nothing, and ends all processes
        }
        let counts: Vec<i32> = lengths.iter().map(|&length| length as i32).collect();
        let mut starts = Vec::with_capacity(size);
        counts.iter().fold(0, |start, count| {
            starts.push(start);
            start + count
        });
        let mut all = vec![0u8; total as usize];
        let mut parts = PartitionMut::new(&mut all[..], &counts[..], &starts[..]);
        scope(|scope| {
            self.wait(self.world.immediate_all_gather_varcount_into(scope, bytes, &mut parts));
        });
        let part = |(start, count): (&i32, &i32)| all[*start as usize..(*start + *count) as usize].to_vec();
        starts.iter().zip(&counts).map(part).collect()
    }

    /// Waits for a message. If someone has nothing else to do meanwhile the pauses are short.
    fn wait<'a, D: ?Sized, S: mpi::request::Scope<'a>>(&self, mut request: Request<'a, D, S>) {
        let mut looks = 0;
        let mut pause = Duration::from_micros(5);
        loop {
            match request.test() {
                Ok(_) => return,
                Err(again) => request = again,
            }
            looks += 1;
            if looks < BUSY_LOOKS || (self.is_awaited.load(Ordering::Relaxed) && looks < 100 * BUSY_LOOKS) {
                std::thread::yield_now();
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
