//! One directory, one run: a lock that the operating system gives back when its holder dies.

use super::disk;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Holds a run's directory until it is dropped; the file `lock` stays.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes `out`, which is made if it does not exist. Fails with [`Error::Busy`] and the process that holds it.
    pub fn acquire(out: &Path) -> Result<Self> {
        if !out.is_dir() {
            disk::make_directory(out)?;
            disk::sync_name(out)?;
        }
        let path = out.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // it may be another's
            .open(&path)
            .map_err(Error::io(&path))?;
        let locked = file.try_lock().or_else(|_| {
            std::thread::sleep(Duration::from_millis(20)); // someone may only have looked, by `is_held`
            file.try_lock()
        });
        locked.map_err(|error| match error {
            TryLockError::WouldBlock => Error::Busy { path: out.to_path_buf(), holder: holder(&mut file) },
            TryLockError::Error(error) => Error::io(&path)(error),
        })?;
        let signature = format!("process {}, started {}\n", std::process::id(), now());
        disk::sign(&mut file, &path, signature.as_bytes())?;
        Ok(Self { _file: file })
    }

    /// Keeps others from taking `out` while it is read, where nothing can be written; `None` if nobody has ever taken it. Fails with
    /// [`Error::Busy`] and the process that holds it.
    pub fn share(out: &Path) -> Result<Option<Self>> {
        let path = out.join("lock");
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::io(&path))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Busy { path: out.to_path_buf(), holder: holder(&mut file) })
            }
            Err(TryLockError::Error(error)) => Err(Error::io(&path)(error)),
        }
    }
}

/// Whether a process holds the directory `out` now.
pub fn is_held(out: &Path) -> bool {
    let lock = File::open(out.join("lock")).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

/// What the holder signed with; one that has taken the lock just now is given a little time to sign.
fn holder(file: &mut File) -> String {
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(10));
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.take(200).read_to_string(&mut text));
        if read.is_ok() && text.ends_with('\n') {
            return text.lines().next().unwrap_or_default().to_string();
        }
    }
    "another process".to_string()
}

fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// `2026-01-31 23:59:59 UTC` (Hinnant's civil_from_days; years begin in March, so that a leap day ends one).
fn utc(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let second = seconds % 86_400;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let hour = second / 3600;
    let minute = second / 60 % 60;
    let second = second % 60;
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::{Lock, is_held, utc};
    use crate::error::Error;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_000_000_000), "2001-09-09 01:46:40 UTC");
    }

    #[test]
    fn a_second_run_is_told_who_holds_the_directory() {
        let out = tempfile::tempdir().unwrap();
        let held = Lock::acquire(out.path()).unwrap();
        let error = Lock::acquire(out.path()).unwrap_err();
        assert_eq!(error.exit_code(), 6);
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
        assert!(is_held(out.path()));
        drop(held);
        assert!(!is_held(out.path()));
        Lock::acquire(out.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_read_is_shared_by_readers_alone() {
        let out = tempfile::tempdir().unwrap();
        assert!(Lock::share(out.path()).unwrap().is_none());
        let writer = Lock::acquire(out.path()).unwrap();
        let refused = Lock::share(out.path()).unwrap_err();
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        drop(writer);
        let readers = [Lock::share(out.path()).unwrap(), Lock::share(out.path()).unwrap()];
        assert!(readers.iter().all(Option::is_some));
        assert!(matches!(Lock::acquire(out.path()), Err(Error::Busy { .. })));
        drop(readers);
        Lock::acquire(out.path()).unwrap();
    }

    #[test]
    fn a_lock_file_without_a_holder_is_no_lock() {
        let out = tempfile::tempdir().unwrap();
        std::fs::write(out.path().join("lock"), "process 1, started long ago, with a long story\n").unwrap();
        Lock::acquire(out.path()).unwrap();
        let text = std::fs::read_to_string(out.path().join("lock")).unwrap();
        assert!(text.starts_with(&format!("process {}, started 2", std::process::id())), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
