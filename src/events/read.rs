//! Reads `metrics.jsonl`, also while a run writes it.

use super::event::Event;
use crate::error::{Error, Result};
use crate::storage::METRICS;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// As many of the last bytes that were read must still be there, else the file is another one.
const TAIL: usize = 512;

/// The events of a run, in the order of their writing; each look goes on where the one before ended.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    path: PathBuf,
    read: Position,
    /// Whether the last line was only half there, and left out: the run writes it, or was killed while it did.
    pub torn: bool,
}

/// How far a file was read.
#[derive(Clone, Debug, Default)]
struct Position {
    bytes: u64,
    lines: usize,
    /// The last bytes before it.
    tail: Vec<u8>,
    /// Whether the last line that was taken had no end yet.
    is_open: bool,
}

/// What a look has found.
#[derive(Debug)]
pub(crate) struct News {
    /// Whether the events are all there are, not only those since the last look: at the first look, and where the file was
    /// replaced or cut, as a resumed run does with what it will do again.
    pub anew: bool,
    /// Those of kinds that this version knows.
    pub events: Vec<Event>,
}

impl Events {
    /// Those of the run in `directory`, from the begin.
    pub(crate) fn of(directory: &Path) -> Self {
        Self { path: directory.join(METRICS), read: Position::default(), torn: false }
    }

    /// Reads what was written since the last look. Fails if the file is missing, or a line that has an end is no event or
    /// has a field that is something else; names the line.
    pub(crate) fn look(&mut self) -> Result<News> {
        let mut file = File::open(&self.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::checkpoint(&self.path, "is missing: every run's directory has one"),
            _ => Error::io(&self.path)(error),
        })?;
        let is_same = self.read.is_in(&mut file).map_err(Error::io(&self.path))?;
        let anew = !is_same || self.read.bytes == 0;
        if !is_same {
            self.read = Position::default();
        }
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(self.read.bytes)).map_err(Error::io(&self.path))?;
        file.read_to_end(&mut text).map_err(Error::io(&self.path))?;
        let mut events = Vec::new();
        self.torn = false;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            events.extend(self.take(line)?);
        }
        Ok(News { anew, events })
    }

    fn take(&mut self, line: &[u8]) -> Result<Option<Event>> {
        if self.read.is_open && line == b"\n" {
            self.read.pass(line); // the end of a line that was taken
            return Ok(None);
        }
        let number = self.read.lines + 1;
        let event = match serde_json::from_slice(line) {
            Ok(event @ Value::Object(_)) => {
                Event::parse(&event).map_err(|what| self.refuse(number, &what))?
            }
            _ if !line.ends_with(b"\n") => {
                self.torn = true;
                return Ok(None);
            }
            Ok(_) => return Err(self.refuse(number, "is no event: wanted a JSON object")),
            Err(error) => return Err(self.refuse(number, &format!("is no event: {error}"))),
        };
        self.read.lines = number;
        self.read.pass(line);
        Ok(event)
    }

    /// An error about the file.
    pub(crate) fn refuse(&self, number: usize, what: &str) -> Error {
        Error::checkpoint(&self.path, format!("line {number}: {what}"))
    }
}

impl Position {
    /// Whether the file still has what was read of it.
    fn is_in(&self, file: &mut File) -> io::Result<bool> {
        if file.metadata()?.len() < self.bytes {
            return Ok(false);
        }
        let mut tail = vec![0; self.tail.len()];
        file.seek(SeekFrom::Start(self.bytes - tail.len() as u64))?;
        match file.read_exact(&mut tail) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false), // cut since
            outcome => outcome.map(|()| tail == self.tail),
        }
    }

    fn pass(&mut self, line: &[u8]) {
        self.bytes += line.len() as u64;
        self.tail.extend_from_slice(line);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        self.is_open = !line.ends_with(b"\n");
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
    use super::{Event, Events};
    use crate::error::Result;
    use crate::storage::METRICS;
    use std::io::Write;
    use std::path::Path;

    fn write(run: &Path, text: &str) {
        std::fs::write(run.join(METRICS), text).unwrap();
    }

    fn append(run: &Path, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).open(run.join(METRICS)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Steps of the events, and whether they are all there are.
    fn look(events: &mut Events) -> Result<(bool, Vec<u64>)> {
        let news = events.look()?;
        let step = |event: &Event| match event {
            Event::Step(step) => step.step,
            _ => 0,
        };
        Ok((news.anew, news.events.iter().map(step).collect()))
    }

    fn line(step: u64) -> String {
        format!("{{\"event\":\"step\",\"step\":{step}}}\n")
    }

    #[test]
    fn a_last_line_that_is_half_written_is_left_out_at_any_length() {
        let whole = line(2);
        let line_2 = whole.trim_end();
        for length in 0..=line_2.len() {
            let run = tempfile::tempdir().unwrap();
            write(run.path(), &(line(1) + &line_2[..length]));
            let mut events = Events::of(run.path());
            let is_whole = length == line_2.len();
            let torn = length > 0 && !is_whole;
            let wanted = if is_whole { vec![1, 2] } else { vec![1] };
            assert_eq!(look(&mut events).unwrap(), (true, wanted), "{length} bytes");
            assert_eq!(events.torn, torn, "{length} bytes");
            append(run.path(), &(whole[length..].to_string() + &line(3))); // the rest comes
            let wanted = if is_whole { vec![3] } else { vec![2, 3] };
            assert_eq!(look(&mut events).unwrap(), (false, wanted), "{length} bytes");
            assert!(!events.torn);
        }
    }

    #[test]
    fn a_look_reads_only_what_came_since_the_last() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), &(1..=100).map(line).collect::<String>());
        let mut events = Events::of(run.path());
        assert_eq!(look(&mut events).unwrap().1.len(), 100);
        assert_eq!(look(&mut events).unwrap(), (false, vec![]));
        append(run.path(), &(line(101) + &line(102)));
        assert_eq!(look(&mut events).unwrap(), (false, vec![101, 102]));
        append(run.path(), "7\n");
        let error = look(&mut events).unwrap_err().to_string();
        assert!(error.contains("line 103: is no event"), "{error}"); // lines are counted from the file's begin
    }

    #[test]
    fn a_file_that_was_cut_or_replaced_is_read_from_its_begin() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), &(1..=5).map(line).collect::<String>());
        let mut events = Events::of(run.path());
        look(&mut events).unwrap();
        write(run.path(), &(1..=3).map(line).collect::<String>()); // shorter
        assert_eq!(look(&mut events).unwrap(), (true, vec![1, 2, 3]));
        write(run.path(), &[1, 2, 4, 5, 6].map(line).concat()); // longer, with another line where the third ended
        assert_eq!(look(&mut events).unwrap(), (true, vec![1, 2, 4, 5, 6]));
    }

    #[test]
    fn a_garbage_line_in_the_middle_is_refused_by_file_and_number() {
        for garbage in ["{\"event\":", "7", "", "\u{0}\u{0}"] {
            let run = tempfile::tempdir().unwrap();
            write(run.path(), &format!("{{}}\n{garbage}\n{{}}\n"));
            let error = Events::of(run.path()).look().unwrap_err();
            assert_eq!(error.exit_code(), 4);
            assert!(error.to_string().contains("metrics.jsonl: line 2: is no event"), "{error}");
        }
    }

    #[test]
    fn a_directory_without_metrics_is_no_run() {
        let nothing = tempfile::tempdir().unwrap();
        let error = Events::of(nothing.path()).look().unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl: is missing"), "{error}");
    }
}
