//! RUN…, as `plot` and `compare` take it.

use super::output::note;
use crate::error::{Error, Result};
use crate::study::RunHistory;
use crate::study::run::distinguish;
use std::io::Write;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Directories of runs, live, stopped or finished, or hf://owner/name[@revision]
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Call the runs so, in their order [default: their directories' names]; one for each
    #[arg(long = "label", value_name = "NAME")]
    labels: Vec<String>,
}

impl RunArgs {
    /// Reads the runs and names them. Fails if one cannot be read, or there are other than as many labels as
    /// runs.
    pub(super) fn read(&self) -> Result<Vec<RunHistory>> {
        let labels = self.labels.len();
        let wanted = self.runs.len();
        if labels > 0 && labels != wanted {
            return Err(Error::config(format!(
                "--label was given {labels} times for {wanted} runs, wanted one a run"
            )));
        }
        let mut runs = self.runs.iter().map(|run| RunHistory::read(run)).collect::<Result<Vec<_>>>()?;
        for (at, path) in self.runs.iter().enumerate() {
            let given = |other: &PathBuf| {
                other.canonicalize().is_ok_and(|other| path.canonicalize().is_ok_and(|path| path == other))
            };
            if self.runs[..at].iter().any(given) {
                let what = format!("{} is given twice: it would count as two runs", path.display());
                return Err(Error::config(what));
            }
        }
        distinguish(&mut runs);
        for (run, label) in runs.iter_mut().zip(&self.labels) {
            run.name.clone_from(label);
        }
        for run in runs.iter().filter(|run| run.torn) {
            note(&format!("{}: the last line of metrics.jsonl is half written; left out", run.name));
        }
        Ok(runs)
    }
}

/// Writes a result to the standard output. Fails if it cannot be written.
pub(super) fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(Error::io("standard output"))
}
