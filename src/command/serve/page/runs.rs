//! The runs that the page shows: those below `--runs`, and the directory of the served checkpoint.
//!
//! A run is asked for by its name in this list and by nothing else, so no request reaches another directory; and no answer
//! names one.

use super::super::failure::Failure;
use super::super::http::{Reply, json};
use super::super::models::name_of;
use crate::checkpoint;
use crate::error::Result;
use crate::study::RunHistory;
use crate::study::overview::{Found, overview};
use hyper::{Response, StatusCode};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Runs that may be drawn or compared at once.
const MOST: usize = 32;

/// For so long a list is as good as new: many pages cost no more than one.
const FRESH: Duration = Duration::from_millis(500);

/// Requests whose runs are read at once: others find threads that are free.
const AT_ONCE: usize = 2;

/// Where runs lie.
pub(in crate::command::serve) struct Runs {
    below: Option<PathBuf>,
    /// The served checkpoint's name and directory.
    checkpoint: Option<(String, PathBuf)>,
    kept: Mutex<Option<(Instant, Arc<Vec<Listed>>)>>,
    pub(super) readers: Semaphore,
}

/// A run or a model of the list.
struct Listed {
    found: Found,
    place: PathBuf,
}

impl Runs {
    /// Fails if the checkpoint cannot be found.
    pub(in crate::command::serve) fn open(checkpoint: Option<&Path>, below: Option<&Path>) -> Result<Self> {
        let named = |path: &Path| -> Result<_> { Ok((name_of(path), checkpoint::resolve(path)?)) };
        Ok(Self {
            below: below.map(Path::to_path_buf),
            checkpoint: checkpoint.map(named).transpose()?,
            kept: Mutex::new(None),
            readers: Semaphore::new(AT_ONCE),
        })
    }

    /// `GET /page/runs`.
    pub(super) fn json(&self) -> std::result::Result<Response<Reply>, Failure> {
        let list = self.list()?;
        let found: Vec<&Found> = list.iter().map(|listed| &listed.found).collect();
        Ok(json(StatusCode::OK, &json!({"object": "runs", "runs": found})))
    }

    /// The runs of these names, in their order. Fails if there is none, one is unknown, or one cannot be read.
    pub(super) fn read(&self, names: &[String]) -> std::result::Result<Vec<RunHistory>, Failure> {
        if names.is_empty() || names.len() > MOST {
            let message = format!("run is given {} times, wanted 1 to {MOST} runs by name", names.len());
            return Err(Failure::field("run", message));
        }
        let list = self.list()?;
        let read = |name: &String| {
            let shown: String = name.chars().take(80).collect();
            let Some(listed) = list.iter().find(|listed| listed.found.name == *name) else {
                let message = format!("there is no run {shown:?}: GET /page/runs lists them");
                return Err(Failure::new(StatusCode::NOT_FOUND, "run_not_found", message));
            };
            match RunHistory::read(&listed.place) {
                Ok(run) => Ok(RunHistory { name: name.clone(), ..run }),
                Err(_) => {
                    let message = format!("{shown:?} has no history that can be shown; rhn compare says why");
                    Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "run_unreadable", message))
                }
            }
        };
        names.iter().map(read).collect()
    }

    fn list(&self) -> std::result::Result<Arc<Vec<Listed>>, Failure> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, list)) = kept.as_ref().filter(|(since, _)| since.elapsed() < FRESH) {
            return Ok(list.clone());
        }
        let list = self.look().map_err(|_| Failure::internal("the directory of the runs cannot be read"))?;
        let list = Arc::new(list);
        *kept = Some((Instant::now(), list.clone()));
        Ok(list)
    }

    fn look(&self) -> Result<Vec<Listed>> {
        let mut list = Vec::new();
        if let Some(below) = &self.below {
            for mut found in overview(below)? {
                let mut place = below.join(&found.name);
                if found.name == below.display().to_string() {
                    found.name = name_of(below); // the directory is a run itself
                    place = below.clone();
                }
                list.push(Listed::new(found, place));
            }
        }
        if let Some((name, place)) = &self.checkpoint
            && let Some(mut found) = overview(place)?.into_iter().next()
        {
            found.name.clone_from(name);
            list.retain(|listed| listed.found.name != *name);
            list.insert(0, Listed::new(found, place.clone()));
        }
        Ok(list)
    }
}

impl Listed {
    /// Without the paths that a corpus or a problem may name.
    fn new(mut found: Found, place: PathBuf) -> Self {
        found.corpus = found.corpus.map(|corpus| without_directory(&corpus));
        found.problem = found.problem.map(|_| "its events cannot be read; rhn runs says why".into());
        Self { found, place }
    }
}

/// A path's last part, after `…/`; anything else as it is.
pub(super) fn without_directory(text: &str) -> String {
    let is_path = text.contains(['/', '\\']) && !text.starts_with("hf://");
    match text.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next() {
        Some(last) if is_path => format!("…/{last}"),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_directory;

    #[test]
    fn of_a_path_the_last_part_is_shown() {
        assert_eq!(without_directory("/home/me/texts/a.txt"), "…/a.txt");
        assert_eq!(without_directory("C:\\texts\\"), "…/texts");
        assert_eq!(["ptb", "hf://a/b", ""].map(without_directory), ["ptb", "hf://a/b", ""]);
    }
}
