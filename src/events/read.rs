//! Reads `metrics.jsonl`, also while a run writes it.

use super::event::Event;
use crate::error::{Error, Result};
use crate::storage::METRICS;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The events of a run, in the order of their writing.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    path: PathBuf,
    /// Each object with the number of its line, counted from 1.
    all: Vec<(usize, Value)>,
    /// Whether the last line was only half there, and left out: the run writes it, or was killed while it did.
    pub torn: bool,
}

impl Events {
    /// Reads the file in `directory`. Fails if it is missing, or a line that has an end is no event.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(METRICS);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::checkpoint(&path, "is missing: every run's directory has one")
            }
            _ => Error::io(&path)(error),
        })?;
        let mut events = Self { path, all: Vec::new(), torn: false };
        for (line, number) in text.split_inclusive(|&byte| byte == b'\n').zip(1..) {
            events.take(line, number)?;
        }
        Ok(events)
    }

    fn take(&mut self, line: &[u8], number: usize) -> Result<()> {
        match serde_json::from_slice(line) {
            Ok(event @ Value::Object(_)) => self.all.push((number, event)),
            _ if !line.ends_with(b"\n") => self.torn = true,
            Ok(_) => return Err(self.refuse(number, "is no event: wanted a JSON object")),
            Err(error) => return Err(self.refuse(number, &format!("is no event: {error}"))),
        }
        Ok(())
    }

    /// The events that this version knows. Fails if a field is missing or is something else; names the line.
    pub(crate) fn typed(&self) -> Result<Vec<Event>> {
        let parse = |(number, object): &(usize, Value)| {
            Event::parse(object).map_err(|what| self.refuse(*number, &what)).transpose()
        };
        self.all.iter().filter_map(parse).collect()
    }

    /// An error about the file.
    pub(crate) fn refuse(&self, number: usize, what: &str) -> Error {
        Error::checkpoint(&self.path, format!("line {number}: {what}"))
    }
}

/// The events of the run in `directory` that can be read, whatever else is in the file.
pub(crate) fn readable(directory: &Path) -> Vec<Event> {
    let text = fs::read(directory.join(METRICS)).unwrap_or_default();
    let objects = text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    objects.filter_map(|object| Event::parse(&object).ok().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::Events;
    use crate::error::Result;
    use crate::storage::METRICS;

    fn read(text: &str) -> Result<Events> {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join(METRICS), text).unwrap();
        Events::read(run.path())
    }

    #[test]
    fn a_last_line_that_is_half_written_is_left_out_at_any_length() {
        let line = r#"{"event":"epoch","epoch":2}"#;
        for length in 0..=line.len() {
            let events = read(&format!("{{\"event\":\"start\"}}\n{}", &line[..length])).unwrap();
            let whole = length == line.len();
            let torn = length > 0 && length < line.len();
            assert_eq!((events.all.len(), events.torn), (1 + usize::from(whole), torn), "{length} bytes");
        }
    }

    #[test]
    fn a_garbage_line_in_the_middle_is_refused_by_file_and_number() {
        for garbage in ["{\"event\":", "7", "", "\u{0}\u{0}"] {
            let error = read(&format!("{{}}\n{garbage}\n{{}}\n")).unwrap_err();
            assert_eq!(error.exit_code(), 4);
            assert!(error.to_string().contains("metrics.jsonl: line 2: is no event"), "{error}");
        }
    }

    #[test]
    fn a_directory_without_metrics_is_no_run() {
        let nothing = tempfile::tempdir().unwrap();
        assert!(Events::read(nothing.path()).unwrap_err().to_string().contains("metrics.jsonl: is missing"));
    }
}
