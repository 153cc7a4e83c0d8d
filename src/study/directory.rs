//! What a study leaves: a directory with `result.json`, a tab-separated file for each table, and pictures.

use crate::error::Result;
use crate::storage::disk;
use crate::study::plot::{Figure, draw_figure, to_png, to_svg};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The directory of a study's results.
#[derive(Debug)]
pub(crate) struct StudyDirectory(PathBuf);

impl StudyDirectory {
    /// `out`, or unless it is given `studies/RUN/NAME` in the current directory, RUN being the run's directory's name: a
    /// run's own directory may be shared, read-only or under version control. Earlier results there are replaced.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub(crate) fn create(out: Option<&Path>, run: &Path, name: &str) -> Result<Self> {
        let directory = out.map_or_else(|| default(run, name), Path::to_path_buf);
        disk::make_directory(&directory)?;
        Ok(Self(directory))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes `result.json`. A number that is not finite is null.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_result(&self, result: &impl Serialize) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(result).map_err(std::io::Error::from);
        if let Ok(json) = &mut json {
            json.push(b'\n');
        }
        let path = self.0.join("result.json");
        disk::replace(&path, &json.map_err(crate::error::Error::io(&path))?)
    }

    /// Writes `NAME.svg`, and if `png` also `NAME.png` with twice as many pixels in each direction.
    ///
    /// # Errors
    /// If one of them cannot be made or written.
    pub(crate) fn write_figure(&self, name: &str, figure: &Figure, png: bool) -> Result<()> {
        const SCALE: u32 = 2;
        let picture = draw_figure(figure);
        disk::replace(&self.0.join(format!("{name}.svg")), to_svg(&picture).as_bytes())?;
        if png {
            disk::replace(&self.0.join(format!("{name}.png")), &to_png(&picture, SCALE)?)?;
        }
        Ok(())
    }

    /// Writes `NAME.tsv`: a head, and a line for each row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_table(&self, name: &str, head: &[&str], rows: &[Vec<String>]) -> Result<()> {
        let mut text = head.join("\t") + "\n";
        for row in rows {
            text += &(row.join("\t") + "\n");
        }
        disk::replace(&self.0.join(format!("{name}.tsv")), text.as_bytes())
    }
}

fn default(run: &Path, name: &str) -> PathBuf {
    let run = std::path::absolute(run).unwrap_or_else(|_| run.to_path_buf());
    Path::new("studies").join(run.file_name().unwrap_or("run".as_ref())).join(name)
}

/// A number for a tab-separated table, every digit of it; an empty field where there is none.
pub(crate) fn tsv_number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::{StudyDirectory, default, tsv_number};
    use std::path::Path;

    #[test]
    fn results_lie_under_the_runs_name_and_the_studys() {
        assert_eq!(default(Path::new("checkpoints/a/"), "lesion"), Path::new("studies/a/lesion"));
    }

    #[test]
    fn a_table_has_a_line_a_row_and_nothing_where_there_is_no_number() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/study");
        let study = StudyDirectory::create(Some(&out), Path::new("run"), "lesion").unwrap();
        let rows = [vec!["a".into(), tsv_number(Some(0.1))], vec!["b".into(), tsv_number(Some(f64::NAN))]];
        study.write_table("layers", &["layer", "value"], &rows).unwrap();
        study.write_result(&Some(1.5)).unwrap();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(read("layers.tsv"), "layer\tvalue\na\t0.1\nb\t\n");
        assert_eq!(read("result.json"), "1.5\n");
    }
}
