//! Writes `metrics.jsonl`, and drops from it what a resumed run will do again.

use crate::error::{Error, Result};
use crate::storage::METRICS;
use crate::storage::disk::{self, Growing};
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Appends events to a run's `metrics.jsonl`.
#[derive(Debug)]
pub(crate) struct EventLog {
    path: PathBuf,
    file: Growing,
}

impl EventLog {
    /// Opens the file in `directory`, or makes it. A last line that a kill cut short is removed.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(METRICS);
        let mut log = Self { file: Growing::open(&path)?, path };
        let text = log.read()?;
        let whole = whole_lines(&text);
        if whole.len() < text.len() {
            log.mend(whole.len(), &text[whole.len()..])?;
        }
        Ok(log)
    }

    /// Adds an [`Event`](super::Event), or another object, in one write, so that a reader sees whole lines.
    pub(crate) fn append(&mut self, object: &impl Serialize) -> Result<()> {
        let sorted = serde_json::to_value(object).map_err(|error| Error::io(&self.path)(error.into()))?;
        self.file.append(format!("{sorted}\n").as_bytes())
    }

    /// The events so far are on the disk when this returns.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    /// Drops every event, for a run that begins anew.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.file.cut(0)
    }

    /// Drops what a resumed run will do again: the events after `step`, those of epochs after the first `epochs`, of
    /// which the last may be of `step` itself, and each of a kind in `kinds` after the last step that it was recorded
    /// at. Events without a step stay.
    pub(crate) fn truncate_after(&mut self, step: u64, epochs: u64, kinds: &[(&str, u64)]) -> Result<()> {
        self.retain(|event| {
            let at_most = |key: &str, limit: u64| event[key].as_u64().is_none_or(|found| found <= limit);
            let is_done = |&(kind, last): &(&str, u64)| event["event"] != kind || at_most("step", last);
            at_most("step", step)
                && (event["event"] != "epoch" || at_most("epoch", epochs))
                && kinds.iter().all(is_done)
        })
    }

    /// Drops a result of `step` that was reported before a kill and will be reported again.
    pub(crate) fn drop_result(&mut self, step: u64) -> Result<()> {
        self.retain(|event| event["event"] != "result" || event["step"] != step)
    }

    /// Keeps the events that stay, and lines that are no event.
    fn retain(&mut self, stays: impl Fn(&Value) -> bool) -> Result<()> {
        let text = self.read()?;
        let stays = |line: &&[u8]| serde_json::from_slice(line).map_or(true, |event| stays(&event));
        let kept: Vec<u8> =
            text.split_inclusive(|&byte| byte == b'\n').filter(stays).flatten().copied().collect();
        if kept.len() == text.len() {
            return Ok(());
        }
        disk::replace(&self.path, &kept)?;
        self.file = Growing::open(&self.path)?;
        Ok(())
    }

    fn read(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).map_err(Error::io(&self.path))
    }

    /// The last line has no end: ends it if it is an event, else removes it.
    fn mend(&mut self, whole: usize, rest: &[u8]) -> Result<()> {
        match serde_json::from_slice::<Value>(rest) {
            Ok(Value::Object(_)) => self.file.append(b"\n"),
            _ => self.file.cut(whole as u64),
        }
    }
}

/// The text up to its last line end.
fn whole_lines(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::EventLog;
    use crate::storage::METRICS;
    use serde_json::json;
    use std::fs;
    use std::path::Path;

    fn lines(directory: &Path) -> Vec<String> {
        let text = fs::read_to_string(directory.join(METRICS)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(String::from).collect()
    }

    #[test]
    fn a_reopened_file_goes_on_where_it_ended() {
        let run = tempfile::tempdir().unwrap();
        EventLog::open(run.path()).unwrap().append(&json!({"step": 1})).unwrap();
        EventLog::open(run.path()).unwrap().append(&json!({"step": 2})).unwrap();
        assert_eq!(lines(run.path()), [r#"{"step":1}"#, r#"{"step":2}"#]);
    }

    #[test]
    fn events_after_the_restored_step_are_dropped_and_its_own_stay() {
        let run = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(run.path()).unwrap();
        log.append(&json!({"event": "start"})).unwrap();
        for step in [1, 2, 2, 3, 4] {
            log.append(&json!({"step": step})).unwrap();
        }
        log.truncate_after(2, 9, &[]).unwrap();
        log.append(&json!({"step": 3, "again": true})).unwrap();
        let wanted = [
            r#"{"event":"start"}"#,
            r#"{"step":1}"#,
            r#"{"step":2}"#,
            r#"{"step":2}"#,
            r#"{"again":true,"step":3}"#,
        ];
        assert_eq!(lines(run.path()), wanted);
    }

    #[test]
    fn an_epoch_that_is_to_be_validated_again_loses_its_row_but_not_its_steps() {
        let run = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(run.path()).unwrap();
        log.append(&json!({"event": "epoch", "epoch": 1, "step": 3})).unwrap();
        log.append(&json!({"event": "step", "epoch": 2, "step": 6})).unwrap();
        let kept = lines(run.path());
        log.append(&json!({"event": "epoch", "epoch": 2, "step": 6})).unwrap();
        log.truncate_after(6, 1, &[]).unwrap();
        assert_eq!(lines(run.path()), kept);
        log.append(&json!({"event": "evaluation", "epoch": 2, "step": 6})).unwrap();
        log.truncate_after(6, 1, &[("evaluation", 6)]).unwrap();
        assert_eq!(lines(run.path()).len(), kept.len() + 1);
        log.truncate_after(6, 1, &[("evaluation", 3)]).unwrap(); // it was recorded, and the state was not saved
        assert_eq!(lines(run.path()), kept);
        log.clear().unwrap();
        log.append(&json!({"event": "start"})).unwrap();
        assert_eq!(lines(run.path()), [r#"{"event":"start"}"#]);
    }

    #[test]
    fn a_result_that_will_be_reported_again_is_dropped_and_an_earlier_one_stays() {
        let run = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(run.path()).unwrap();
        for step in [3, 6] {
            log.append(&json!({"event": "result", "step": step})).unwrap();
        }
        log.drop_result(6).unwrap();
        assert_eq!(lines(run.path()), [r#"{"event":"result","step":3}"#]);
    }

    #[test]
    fn a_torn_last_line_is_removed_at_any_length() {
        let event = r#"{"event":"epoch","step":2}"#;
        for length in 0..=event.len() {
            let run = tempfile::tempdir().unwrap();
            fs::write(run.path().join(METRICS), format!("{{\"step\":1}}\n{}", &event[..length])).unwrap();
            EventLog::open(run.path()).unwrap().append(&json!({"step": 3})).unwrap();
            let whole = if length == event.len() { vec![event] } else { vec![] };
            let wanted = [vec![r#"{"step":1}"#], whole, vec![r#"{"step":3}"#]].concat();
            assert_eq!(lines(run.path()), wanted, "{length} bytes of the line");
        }
    }
}
