//! Tab-separated lines: a label and a sentence, CoLA's four columns, or pairs.

use super::{Labelled, LabelledSentence};
use crate::error::{Error, Result};
use crate::eval::sentences::{is_pairs, parse_pairs};
use crate::readable::counted;
use std::path::Path;

/// The columns of a file.
#[derive(Clone, Copy)]
enum Columns {
    /// `label<TAB>sentence[<TAB>anything…]`: 1 needs an edit.
    LabelFirst,
    /// CoLA (Warstadt et al., 2019): `source<TAB>label<TAB>mark<TAB>sentence`, and 1 is acceptable.
    Cola,
}

impl Columns {
    fn wanted(self) -> &'static str {
        match self {
            Self::LabelFirst => "label<TAB>sentence, the label 0 (as it should be) or 1 (needs an edit)",
            Self::Cola => {
                "CoLA's source<TAB>label<TAB>mark<TAB>sentence, the label 0 (needs an edit) or 1 (acceptable)"
            }
        }
    }
}

/// The sentences of a text. A file with the header `good<TAB>bad`, or of JSON lines, is one of pairs.
///
/// # Errors
/// If a line is not as the first one is.
pub(super) fn parse(file: &Path, text: &str) -> Result<Labelled> {
    if is_pairs(text) {
        return of_pairs(file, text);
    }
    let mut found = Labelled::default();
    let has_header = text.split(['\t', '\r', '\n']).next() == Some("label");
    let mut columns = has_header.then_some(Columns::LabelFirst);
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || (number == 1 && has_header) {
            continue;
        }
        let cells: Vec<&str> = line.split('\t').collect();
        let columns =
            *columns.get_or_insert(if cells.len() == 4 { Columns::Cola } else { Columns::LabelFirst });
        let sentence = of_cells(columns, &cells).map_err(|what| {
            Error::data(file, format!("line {number}: {what}; wanted {}", columns.wanted()))
        })?;
        found.add([sentence]);
    }
    Ok(found)
}

fn of_cells(columns: Columns, cells: &[&str]) -> std::result::Result<LabelledSentence, String> {
    let (label, sentence, positive) = match (columns, cells) {
        (Columns::LabelFirst, [label, sentence, ..]) => (label, sentence, "1"),
        (Columns::Cola, [_, label, _, sentence]) => (label, sentence, "0"),
        _ => return Err(format!("has {}", counted(cells.len() as u64, "column"))),
    };
    let label = label.trim();
    let text = sentence.trim().to_owned();
    match (label, text.is_empty()) {
        ("0" | "1", false) => Ok(LabelledSentence { text, needs_edit: label == positive }),
        (_, true) => Err("the sentence is empty".into()),
        _ => Err(format!("the label is {label:.20?}")),
    }
}

/// Both sentences of each pair, of which the bad one needs an edit.
fn of_pairs(file: &Path, text: &str) -> Result<Labelled> {
    let mut found = Labelled::default();
    for pair in parse_pairs(file, text)? {
        let sides = [(pair.good, false), (pair.bad, true)];
        found.add(sides.map(|(text, needs_edit)| LabelledSentence { text, needs_edit }));
    }
    Ok(found)
}
