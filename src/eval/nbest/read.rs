//! N-best lists from files: tab-separated lines, Kaldi's text archives, SRILM's lists.

use super::srilm;
use super::{Hypothesis, NBest};
use crate::data::{Text, packed};
use crate::error::{Error, Result};
use crate::readable::counted;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How a list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Lines of id, score and text, with tabs between
    #[default]
    Tsv,
    /// Kaldi's words_text beside acwt and lmwt.withlm, as its n-best scripts leave them
    Kaldi,
    /// SRILM's nbest-format(5), one file an utterance
    Srilm,
}

/// The files of Kaldi's costs; those beside the text where none is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs<'a> {
    /// Costs of the acoustic model.
    pub acoustic: Option<&'a Path>,
    /// Costs of the graph and the old language model.
    pub language: Option<&'a Path>,
}

/// The lists of a file, or of a directory's files in the order of their names.
///
/// # Errors
/// If one cannot be read, is not in this format, or has no hypothesis: names file, line, what was found and what was wanted.
pub fn read_lists(path: &Path, format: Format) -> Result<Vec<NBest>> {
    match format {
        Format::Tsv => tsv(path, &text(path)?),
        Format::Kaldi => read_kaldi(path, Costs::default()),
        Format::Srilm => srilm::read(path),
    }
}

/// The whole of a file, packed or not, or of the standard input (`-`).
pub(super) fn text(path: &Path) -> Result<Text> {
    if path == Path::new("-") {
        return Text::read_stdin();
    }
    let mut bytes = Vec::new();
    packed::open(path)?.read_to_end(&mut bytes).map_err(|error| packed::unreadable(path, &error))?;
    Ok(Text::new(bytes, path))
}

/// A finite number, or what is wrong with it.
pub(super) fn number(cell: &str, what: &str) -> std::result::Result<f64, String> {
    let value: Option<f64> = cell.trim().parse().ok().filter(|value: &f64| value.is_finite());
    value.ok_or_else(|| format!("the {what} is {cell:?}, wanted a finite number"))
}

/// Hypotheses by their utterances, in the order in which these come first.
#[derive(Default)]
struct Gathered {
    lists: Vec<NBest>,
    places: BTreeMap<String, usize>,
}

impl Gathered {
    fn push(&mut self, id: &str, hypothesis: Hypothesis) {
        let lists = &mut self.lists;
        let at = *self.places.entry(id.to_owned()).or_insert_with(|| {
            lists.push(NBest { id: id.to_owned(), hypotheses: Vec::new() });
            lists.len() - 1
        });
        lists[at].hypotheses.push(hypothesis);
    }

    /// The lists, if there is one.
    fn finish(self, path: &Path, wanted: &str) -> Result<Vec<NBest>> {
        match self.lists.is_empty() {
            true => Err(Error::data(path, format!("has no hypotheses; wanted lines of {wanted}"))),
            false => Ok(self.lists),
        }
    }
}

/// Single blanks between words.
pub(super) fn joined<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(" ")
}

fn tsv(path: &Path, text: &Text) -> Result<Vec<NBest>> {
    const WANTED: &str = "id<TAB>score<TAB>text";
    let mut gathered = Gathered::default();
    for (line, at) in text.as_str()?.lines().zip(1..) {
        if line.trim().is_empty() || (at == 1 && line.starts_with("id\tscore\t")) {
            continue;
        }
        let wrong = |what: String| Error::data(path, format!("line {at}: {what}"));
        let cells: Vec<&str> = line.split('\t').collect();
        let [id, score, words] = cells[..] else {
            return Err(wrong(format!("has {}, wanted {WANTED}", counted(cells.len() as u64, "column"))));
        };
        if id.trim().is_empty() {
            return Err(wrong(format!("the id is empty, wanted {WANTED}")));
        }
        let acoustic = number(score, "score").map_err(&wrong)?;
        let text = joined(words.split_whitespace());
        gathered.push(id.trim(), Hypothesis { acoustic, old: 0.0, text, lp: 0.0 });
    }
    gathered.finish(path, WANTED)
}

/// Kaldi's lists, as `nbest-to-linear` and its scripts write them: `path` is `words_text`, lines of `utt-1 words…`, or the
/// directory that it is in. Costs are lines of `utt-1 cost`, the lower the better.
///
/// # Errors
/// As [`read_lists`]; also if a hypothesis has no cost, or a cost no hypothesis.
pub fn read_kaldi(path: &Path, costs: Costs<'_>) -> Result<Vec<NBest>> {
    const WANTED: &str = "utterance-N words";
    let words = if path.is_dir() { path.join("words_text") } else { path.to_path_buf() };
    let beside = |name: &str| words.with_file_name(name);
    let acoustic = costs.acoustic.map_or_else(|| beside("acwt"), Path::to_path_buf);
    let language = costs.language.map_or_else(|| beside("lmwt.withlm"), Path::to_path_buf);
    let [acoustic, language] = [read_costs(acoustic)?, read_costs(language)?];
    let mut gathered = Gathered::default();
    let mut seen = BTreeSet::new();
    for (line, at) in text(&words)?.as_str()?.lines().zip(1..) {
        let mut cells = line.split_whitespace();
        let Some(key) = cells.next() else { continue };
        let wrong = |what: String| Error::data(&words, format!("line {at}: {what}"));
        if !seen.insert(key.to_owned()) {
            return Err(wrong(format!("a second hypothesis of the key {key:?}")));
        }
        let id = key.rsplit_once('-').filter(|(_, rank)| rank.parse::<u32>().is_ok()).map(|(id, _)| id);
        let id = id.ok_or_else(|| wrong(format!("the key is {key:?}, wanted {WANTED}")))?;
        let score = |of: &CostFile| {
            let cost = of.costs.get(key).copied();
            let cost = cost.ok_or_else(|| wrong(format!("{key} has no cost in {}", of.path.display())))?;
            Ok::<f64, Error>(0.0 - cost) // not -cost, which is printed as -0 where there is none
        };
        let hypothesis =
            Hypothesis { acoustic: score(&acoustic)?, old: score(&language)?, text: joined(cells), lp: 0.0 };
        gathered.push(id, hypothesis);
    }
    for of in [&acoustic, &language] {
        if let Some(key) = of.costs.keys().find(|key| !seen.contains(*key)) {
            let what = format!(
                "has a cost of {key}, which {} lacks: they are not of the same lists",
                words.display()
            );
            return Err(Error::data(&of.path, what));
        }
    }
    gathered.finish(&words, WANTED)
}

struct CostFile {
    path: PathBuf,
    costs: BTreeMap<String, f64>,
}

fn read_costs(path: PathBuf) -> Result<CostFile> {
    let mut costs = BTreeMap::new();
    for (line, at) in text(&path)?.as_str()?.lines().zip(1..) {
        let wrong = |what: String| Error::data(&path, format!("line {at}: {what}"));
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] => {}
            [key, cost] => {
                let cost = number(cost, "cost").map_err(&wrong)?;
                if costs.insert(key.to_owned(), cost).is_some() {
                    return Err(wrong(format!("a second cost of {key:?}")));
                }
            }
            _ => return Err(wrong(format!("wanted `utterance-N cost`, found {line:.60?}"))),
        }
    }
    Ok(CostFile { path, costs })
}

/// What was said, by utterance: lines of an id, white space, and the words, as Kaldi's `text` is written.
///
/// # Errors
/// If a file cannot be read, or has an utterance twice.
pub fn read_references(paths: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let mut references = BTreeMap::new();
    for path in paths {
        for (line, at) in text(path)?.as_str()?.lines().zip(1..) {
            let mut cells = line.split_whitespace();
            let Some(id) = cells.next() else { continue };
            if references.insert(id.to_owned(), joined(cells)).is_some() {
                return Err(Error::data(path, format!("line {at}: a second reference of {id:?}")));
            }
        }
    }
    Ok(references)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_tsv(text: &str) -> Result<Vec<NBest>> {
        tsv(Path::new("lists"), &Text::from(text))
    }

    #[test]
    fn lines_of_one_utterance_are_one_list_wherever_they_are() {
        let lists = read_tsv("id\tscore\ttext\nu1\t-1.5\ta  b\nu2\t-2\tc\n\nu1\t-3e0\t\n").unwrap();
        let found: Vec<(&str, Vec<(f64, &str)>)> = lists
            .iter()
            .map(|list| {
                let of = |hypothesis: &'_ Hypothesis| hypothesis.acoustic;
                let pairs = list.hypotheses.iter().map(|each| (of(each), each.text.as_str())).collect();
                (list.id.as_str(), pairs)
            })
            .collect();
        assert_eq!(found, [("u1", vec![(-1.5, "a b"), (-3.0, "")]), ("u2", vec![(-2.0, "c")])]);
    }

    #[test]
    fn a_key_of_kaldis_stands_once_in_each_file() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("words_text", "u-1 x\nu-2 y\n");
        write("acwt", "u-1 0\nu-2 1\n");
        write("lmwt.withlm", "u-1 3\nu-2 2\n");
        let lists = read_lists(directory.path(), Format::Kaldi).unwrap();
        assert!(lists[0].hypotheses[0].acoustic.is_sign_positive(), "a cost of 0 is a score of 0");
        write("acwt", "u-1 0\nu-2 1\nu-1 5\n");
        let message = read_lists(directory.path(), Format::Kaldi).unwrap_err().to_string();
        assert!(message.ends_with("acwt: line 3: a second cost of \"u-1\""), "{message}");
        write("acwt", "u-1 0\nu-2 1\n");
        write("words_text", "u-1 x\nu-2 y\nu-1 z\n");
        let message = read_lists(directory.path(), Format::Kaldi).unwrap_err().to_string();
        assert!(message.ends_with("line 3: a second hypothesis of the key \"u-1\""), "{message}");
    }

    #[test]
    fn a_line_that_is_no_hypothesis_is_refused_with_its_number() {
        let message = |text| read_tsv(text).unwrap_err().to_string();
        assert!(message("u1\t-1\ta\nu1 -1 b\n").starts_with("lists: line 2: has 1 column, wanted id<TAB>"));
        assert!(message("u1\t-1\ta\n \t-1\tb\n").contains("line 2: the id is empty, wanted id<TAB>"));
        assert!(message("u1\tNaN\ta\n").contains("line 1: the score is \"NaN\", wanted a finite number"));
        assert!(message("").contains("no hypotheses"));
    }

    #[test]
    fn kaldis_costs_are_scores_with_the_other_sign() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("words_text", "a-b-1 x y\na-b-2 x\n");
        write("acwt", "a-b-1 10.5\na-b-2 11\n");
        write("lmwt.withlm", "a-b-1 3\na-b-2 2\n");
        let lists = read_lists(directory.path(), Format::Kaldi).unwrap();
        let hypothesis = |acoustic, old, text: &str| Hypothesis { acoustic, old, text: text.into(), lp: 0.0 };
        let hypotheses = vec![hypothesis(-10.5, -3.0, "x y"), hypothesis(-11.0, -2.0, "x")];
        assert_eq!(lists, [NBest { id: "a-b".into(), hypotheses }]);
        write("acwt", "a-b-1 10.5\n");
        let message = read_lists(directory.path(), Format::Kaldi).unwrap_err().to_string();
        assert!(message.contains("line 2: a-b-2 has no cost in"), "{message}");
        write("acwt", "a-b-1 10.5\na-b-2 11\na-b-3 12\n");
        let message = read_lists(directory.path(), Format::Kaldi).unwrap_err().to_string();
        assert!(
            message.contains("acwt: has a cost of a-b-3, which") && message.contains("words_text lacks"),
            "{message}"
        );
    }

    #[test]
    fn references_are_what_follows_the_id() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        std::fs::write(&path, "u1\ta b\nu2 c\nu3\n").unwrap();
        let found = read_references(std::slice::from_ref(&path)).unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), ["a b", "c", ""]);
        assert!(read_references(&[path.clone(), path]).is_err());
    }
}
