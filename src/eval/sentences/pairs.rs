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
    is_json(text) || text.lines().next().is_some_and(|line| Columns::of_header(line).is_some())
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
    let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()).peekable();
    let header = lines.peek().filter(|_| !is_json).and_then(|(line, _)| Columns::of_header(line));
    let columns = header.unwrap_or_default();
    for (line, number) in lines.skip(usize::from(header.is_some())) {
        let wrong = |what: String| Error::data(file, format!("line {number}: {what}"));
        let pair = if is_json { of_json(line) } else { columns.pair_of(line) }.map_err(&wrong)?;
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

/// Which columns of tab-separated lines are read; without a header the first two, and a third one if it is there.
#[derive(Clone, Copy, Debug)]
struct Columns {
    good: usize,
    bad: usize,
    phenomenon: Option<usize>,
    /// How many the header has; none without one.
    header: Option<usize>,
    /// Whether cells are in quotation marks, as R and spreadsheets write them.
    quoted: bool,
}

impl Default for Columns {
    fn default() -> Self {
        Self { good: 0, bad: 1, phenomenon: Some(2), header: None, quoted: false }
    }
}

impl Columns {
    /// Those of a header: a line with cells that name the good and the bad sentence, in any order and among any others.
    fn of_header(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        let names: Vec<String> = cells.iter().map(|cell| unquoted(cell).to_lowercase()).collect();
        let place = |known: [&str; 2]| names.iter().position(|name| known.contains(&name.as_str()));
        let [good, bad] = [place(["good", "sentence_good"])?, place(["bad", "sentence_bad"])?];
        let unnamed = (cells.len() == 2 && good + bad == 1).then_some(2); // a third column may have no name
        Some(Self {
            good,
            bad,
            phenomenon: place(["phenomenon", "linguistics_term"]).or(unnamed),
            header: Some(cells.len()),
            quoted: cells[good].starts_with('"') && cells[bad].starts_with('"'),
        })
    }

    fn pair_of(self, line: &str) -> std::result::Result<Pair, String> {
        let mut cells: Vec<&str> = line.split('\t').collect();
        let refuse = |cells: &[&str], wanted: &str| {
            let columns = counted(cells.len() as u64, "column");
            Err(format!("has {columns}, wanted {wanted}: {line:.60?}"))
        };
        match self.header {
            None if !(2..=3).contains(&cells.len()) => {
                return refuse(&cells, "good<TAB>bad[<TAB>phenomenon]");
            }
            // R writes the names of rows, and none over them.
            Some(columns) if self.quoted && cells.len() == columns + 1 => _ = cells.remove(0),
            Some(columns)
                if cells.len() <= self.good.max(self.bad)
                    || cells.len() > columns.max(self.phenomenon.map_or(0, |at| at + 1)) =>
            {
                let names = "good<TAB>bad[<TAB>phenomenon]";
                let is_usual = (self.good, self.bad) == (0, 1);
                return refuse(
                    &cells,
                    &if is_usual { names.into() } else { format!("the {columns} of the header") },
                );
            }
            _ => {}
        }
        let cell = |at: usize| {
            cells.get(at).map(|cell| if self.quoted { unquoted(cell.trim()) } else { (*cell).to_owned() })
        };
        let text = |at: usize| cell(at).unwrap_or_default();
        let phenomenon = self.phenomenon.and_then(cell).map(|name| name.trim().to_owned());
        Ok(pair(&text(self.good), &text(self.bad), phenomenon.filter(|name| !name.is_empty())))
    }
}

/// A cell without the quotation marks around it; two of them within it, or one behind a backslash, stand for one.
fn unquoted(cell: &str) -> String {
    let inner = cell.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(|| cell.to_owned(), |inner| inner.replace("\\\"", "\"").replace("\"\"", "\""))
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
    fn columns_are_found_by_their_names_also_in_quotation_marks() {
        let found = |text: &str| -> Vec<(String, String, Option<String>)> {
            let pairs = parse_pairs(Path::new("p"), text).unwrap();
            pairs.into_iter().map(|pair| (pair.good, pair.bad, pair.phenomenon)).collect()
        };
        let wanted = |phenomenon: Option<&str>| {
            vec![("a \"b\"".to_string(), "b a".to_string(), phenomenon.map(String::from))]
        };
        for text in ["item\tGood\tBad\n1\ta \"b\"\tb a\n", "bad\tgood\nb a\ta \"b\"\n"] {
            assert_eq!(found(text), wanted(None), "{text:?}");
        }
        for text in [
            "phenomenon\tbad\tgood\tnote\nswap\tb a\ta \"b\"\tx\n",
            "\n\"good\"\t\"bad\"\t\"phenomenon\"\n\"a \"\"b\"\"\"\t\"b a\"\t\"swap\"\n",
            "\"good\"\t\"bad\"\t\"phenomenon\"\n\"1\"\t\"a \\\"b\\\"\"\t\"b a\"\t\"swap\"\n", // with R's row names
            "good\tbad\na \"b\"\tb a\tswap\n",
        ] {
            assert_eq!(found(text), wanted(Some("swap")), "{text:?}");
        }
        assert!(message("good\tbad\na\tb\tc\td\n").contains("line 2: has 4 columns, wanted good<TAB>bad"));
        let ragged = message("bad\tgood\nb\ta\tswap\tx\n");
        assert!(ragged.contains("line 2: has 4 columns, wanted the 2 of the header"), "{ragged}");
        assert!(
            message("item\tgood\tbad\n1\tx\n").contains("line 2: has 2 columns, wanted the 3 of the header")
        );
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
