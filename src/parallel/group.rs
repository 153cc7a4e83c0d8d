//! Ranks that are threads of one process: the same protocol as that of processes, for tests.

use super::world::{Numbers, Sum, World};
use crate::error::Result;
use std::sync::{Arc, Barrier, Mutex};

/// One of the threads.
pub(crate) struct Group {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    /// What each rank gave last.
    given: Mutex<Vec<Vec<u8>>>,
    barrier: Barrier,
}

impl Group {
    /// What `work` gives on each of `size` ranks.
    pub(crate) fn run<T: Send>(size: usize, work: impl Fn(&dyn World) -> T + Sync) -> Vec<T> {
        Self::run_shared(size, |world| work(&*world))
    }

    /// As [`Group::run`], for work that keeps its world.
    pub(crate) fn run_shared<T: Send>(size: usize, work: impl Fn(Arc<dyn World>) -> T + Sync) -> Vec<T> {
        let shared =
            Arc::new(Shared { given: Mutex::new(vec![Vec::new(); size]), barrier: Barrier::new(size) });
        let work = &work;
        std::thread::scope(|scope| {
            let start = |rank| {
                let world = Arc::new(Self { rank, shared: shared.clone() });
                scope.spawn(move || work(world))
            };
            let threads: Vec<_> = (0..size).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

impl World for Group {
    fn size(&self) -> usize {
        self.shared.given.lock().unwrap().len()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn begin_sum(&self, numbers: Numbers) -> Result<Sum> {
        // In the order of the ranks, whichever asks.
        macro_rules! sum {
            ($kind:ident, $own:expr, $type:ty, $bytes:literal) => {{
                let given = self.gather($own.iter().flat_map(|number| number.to_le_bytes()).collect())?;
                let mut sums = vec![0.0; $own.len()];
                for bytes in given {
                    assert_eq!(bytes.len(), $bytes * sums.len(), "ranks add up different things");
                    for (sum, number) in sums.iter_mut().zip(bytes.chunks_exact($bytes)) {
                        *sum += <$type>::from_le_bytes(number.try_into().unwrap());
                    }
                }
                Numbers::$kind(sums)
            }};
        }
        Ok(Sum::Known(match numbers {
            Numbers::F32(own) => sum!(F32, own, f32, 4),
            Numbers::F64(own) => sum!(F64, own, f64, 8),
        }))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.shared.given.lock().unwrap()[self.rank] = bytes;
        self.shared.barrier.wait();
        let all = self.shared.given.lock().unwrap().clone();
        self.shared.barrier.wait();
        Ok(all)
    }

    fn any(&self, flags: u8) -> Result<u8> {
        Ok(self.gather(vec![flags])?.iter().fold(0, |any, flags| any | flags[0]))
    }

    fn close(&self) -> Result<()> {
        self.any(0).map(drop)
    }
}
