//! Minimal pairs: a good and a bad sentence, from tab-separated lines or BLiMP's JSON lines.

use crate::data::{Text, packed};
use crate::error::{Error, Result};
use crate::readable::counted;
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Two sentences, of which a model should prefer the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where it is from.
    pub file: PathBuf,
    /// Its line there, from 1.
    pub line: usize,
    /// The good sentence.
    pub good: String,
    /// The bad sentence.
    pub bad: String,
    /// What the pair is about: the third column, or BLiMP's `linguistics_term`.
    pub phenomenon: Option<String>,
    /// BLiMP's `field`: syntax, morphology …
    pub field: Option<String>,
    /// BLiMP's `UID`: the paradigm.
    pub uid: Option<String>,
}

/// A line of BLiMP (Warstadt et al., 2020); other fields are not read.
#[derive(Deserialize)]
struct BlimpLine {
    sentence_good: String,
    sentence_bad: String,
    field: Option<String>,
    linguistics_term: Option<String>,
    #[serde(rename = "UID")]
    uid: Option<String>,
}

/// Names of files of pairs in a directory; `.gz` or `.zst` may follow.
const ENDINGS: [&str; 2] = [".tsv", ".jsonl"];

/// The pairs of a file, of a directory's `.tsv` and `.jsonl` files in the order of their names, or of the standard
/// input (`-`). A file whose first character is `{` is JSON lines. Packed files are unpacked.
///
/// # Errors
/// If one cannot be read, or a line is no pair: names file, line, what was found and what was wanted.
pub fn read_pairs(path: &Path) -> Result<Vec<Pair>> {
    if path == Path::new("-") {
        let text = Text::read_stdin()?;
        return parse_pairs(&text.source, text.as_str()?);
    }
    if !path.is_dir() {
        return read_file(path);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        let name = file.to_string_lossy();
        let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
        if ENDINGS.iter().any(|ending| plain.ends_with(ending)) {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::data(path, "has no .tsv or .jsonl file; wanted minimal pairs"));
    }
    files.sort();
    let pairs = files.iter().map(|file| read_file(file)).collect::<Result<Vec<_>>>()?;
    Ok(pairs.concat())
}

fn read_file(path: &Path) -> Result<Vec<Pair>> {
    let mut bytes = Vec::new();
    packed::open(path)?.read_to_end(&mut bytes).map_err(|error| packed::unreadable(path, &error))?;
    let text = Text::new(bytes, path);
    parse_pairs(path, text.as_str()?)
}

/// Whether a text is one of pairs without a doubt: by its header, or by being JSON lines.
pub(crate) fn is_pairs(text: &str) -> bool {
    is_json(text) || text.lines().next().is_some_and(is_header)
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// The pairs of a text; errors as [`read_pairs`].
pub(crate) fn parse_pairs(file: &Path, text: &str) -> Result<Vec<Pair>> {
    let is_json = is_json(text);
    if !is_json && has_labels(text) {
        let what = "has lines of a label and a sentence; wanted good<TAB>bad[<TAB>phenomenon]. `rhn judge` decides on labelled \
                    sentences with --tune FILE, and `rhn eval` of a classifier reads them";
        return Err(Error::data(file, what));
    }
    let mut pairs = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || (number == 1 && is_header(line)) {
            continue;
        }
        let wrong = |what: String| Error::data(file, format!("line {number}: {what}"));
        let pair = if is_json { of_json(line) } else { of_cells(line) }.map_err(&wrong)?;
        for (which, sentence) in [("good", &pair.good), ("bad", &pair.bad)] {
            if sentence.trim().is_empty() {
                return Err(wrong(format!("the {which} sentence is empty")));
            }
            if sentence.contains(['\n', '\r']) {
                return Err(wrong(format!("the {which} sentence has a line end in it; wanted one line")));
            }
        }
        pairs.push(Pair { file: file.to_path_buf(), line: number, ..pair });
    }
    if pairs.is_empty() {
        return Err(Error::data(file, "has no pairs; wanted lines of good<TAB>bad[<TAB>phenomenon]"));
    }
    Ok(pairs)
}

/// Whether the lines of a text begin with a label, as `rhn data errors --labels` writes them.
pub(crate) fn has_labels(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
    let first = |line: &str| line.split_once('\t').map(|(label, _)| label.trim().to_owned());
    if lines.peek().and_then(|line| first(line)).is_some_and(|label| label == "label") {
        return true;
    }
    lines.peek().is_some() && lines.all(|line| first(line).is_some_and(|label| label == "0" || label == "1"))
}

fn is_header(line: &str) -> bool {
    let mut cells = line.split('\t').map(str::trim);
    matches!(
        (cells.next(), cells.next()),
        (Some("good"), Some("bad")) | (Some("sentence_good"), Some("sentence_bad"))
    )
}

fn of_cells(line: &str) -> std::result::Result<Pair, String> {
    let cells: Vec<&str> = line.split('\t').collect();
    let (good, bad, phenomenon) = match cells[..] {
        [good, bad] => (good, bad, None),
        [good, bad, phenomenon] => (good, bad, Some(phenomenon.trim()).filter(|name| !name.is_empty())),
        _ => {
            let columns = counted(cells.len() as u64, "column");
            return Err(format!("has {columns}, wanted good<TAB>bad[<TAB>phenomenon]: {line:.60?}"));
        }
    };
    Ok(pair(good, bad, phenomenon.map(String::from)))
}

fn of_json(line: &str) -> std::result::Result<Pair, String> {
    let read: BlimpLine = serde_json::from_str(line).map_err(|error| {
        let found = error.to_string().replace(" at line 1 column", " at column");
        format!("wanted a JSON object with the strings sentence_good and sentence_bad, found: {found}")
    })?;
    let labelled = pair(&read.sentence_good, &read.sentence_bad, read.linguistics_term);
    Ok(Pair { field: read.field, uid: read.uid, ..labelled })
}

/// A pair without its place.
fn pair(good: &str, bad: &str, phenomenon: Option<String>) -> Pair {
    let [good, bad] = [good, bad].map(|sentence| sentence.trim().to_owned());
    Pair { file: PathBuf::new(), line: 0, good, bad, phenomenon, field: None, uid: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse_pairs(Path::new("pairs"), text).expect_err("it is refused").to_string()
    }

    #[test]
    fn tab_separated_pairs_may_have_a_header_and_a_phenomenon() {
        let pairs =
            parse_pairs(Path::new("p"), "good\tbad\tphenomenon\r\na b\tb a\tswap\r\n\nc d\td c\n").unwrap();
        let found: Vec<_> =
            pairs.iter().map(|pair| (pair.line, pair.good.as_str(), pair.phenomenon.as_deref())).collect();
        assert_eq!(found, [(2, "a b", Some("swap")), (4, "c d", None)]);
        assert_eq!(parse_pairs(Path::new("p"), "good\tbad luck\n").unwrap().len(), 1); // no header
    }

    #[test]
    fn labelled_sentences_are_no_pairs() {
        for text in ["label\tsentence\tkind\n1\ta b\tswap\n", "0\ta b\n\n1\tb a\n"] {
            assert!(message(text).contains("a label and a sentence"), "{text:?}");
        }
        assert_eq!(parse_pairs(Path::new("p"), "0\t1\n10\t1 0\n").unwrap().len(), 2);
    }

    #[test]
    fn blimp_lines_have_their_labels() {
        let line = r#"{"sentence_good": "A b.", "sentence_bad": "B a.", "field": "syntax", "UID": "u", "linguistics_term": "island", "pairID": "0"}"#;
        let pair = &parse_pairs(Path::new("p"), line).unwrap()[0];
        let labels = [&pair.field, &pair.phenomenon, &pair.uid].map(|label| label.as_deref());
        assert_eq!(labels, [Some("syntax"), Some("island"), Some("u")]);
    }

    #[test]
    fn what_is_no_pair_is_refused_with_its_line() {
        assert!(message("a\tb\nalone\n").starts_with("pairs: line 2: has 1 column, wanted good<TAB>bad"));
        assert!(message("a\tb\tc\td\n").contains("line 1: has 4 columns"));
        assert!(message("a\t \n").contains("line 1: the bad sentence is empty"));
        let json = message("{\"sentence_good\": \"a\"}\n");
        assert!(
            json.contains("line 1:") && json.contains("missing field `sentence_bad` at column"),
            "{json}"
        );
        assert!(message("\n").contains("no pairs"));
    }
}
