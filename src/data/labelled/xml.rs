//! The XML of the shared task AESW 2016 (Daudaravicius et al.): `<sentence>` elements whose edits are `<del>` and `<ins>`.
//!
//! A sentence is its text before the edit, without what is in `<ins>`; its text after the edit is without what is in
//! `<del>`. It needs an edit if the two differ, a run of white space counted as one space. Placeholders such as `_MATH_` are
//! words like any other; what is outside of sentences is not read. The five entities of XML and those by number become their
//! characters, others stay as they are written.

use super::{Labelled, LabelledSentence};
use crate::error::{Error, Result};
use std::path::Path;

/// Which version of the sentence a text belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Both,
    Deleted,
    Inserted,
}

/// A sentence that has begun and not ended.
struct Open {
    /// The byte that it begins at.
    at: usize,
    before: String,
    after: String,
    edit: Edit,
}

impl Open {
    fn push(&mut self, text: &str) {
        if self.edit != Edit::Inserted {
            self.before.push_str(text);
        }
        if self.edit != Edit::Deleted {
            self.after.push_str(text);
        }
    }
}

/// The sentences of a file.
///
/// # Errors
/// If tags do not match, or another one than `<del>` and `<ins>` is in a sentence: names file and line.
pub(super) fn parse(file: &Path, text: &str) -> Result<Labelled> {
    let mut reader = Reader { found: Labelled::default(), open: None };
    let mut at = 0;
    let wrong = |at: usize, what: &str| {
        let line = 1 + text[..at].bytes().filter(|&byte| byte == b'\n').count();
        Error::data(file, format!("line {line}: {what}"))
    };
    while at < text.len() {
        let rest = &text[at..];
        let Some(length) = rest.find('<') else {
            reader.text(rest);
            break;
        };
        reader.text(&rest[..length]);
        at += length;
        let markup = &text[at..];
        let length = match markup_end(markup) {
            Some(length) => length,
            None => return Err(wrong(at, &format!("{:.30?} begins a tag that does not end", markup))),
        };
        reader.markup(&markup[..length], at).map_err(|what| wrong(at, &what))?;
        at += length;
    }
    match reader.open {
        None => Ok(reader.found),
        Some(open) => Err(wrong(open.at, "this <sentence> is not ended by </sentence>")),
    }
}

/// How many bytes the tag, comment, declaration or CDATA section at the text's start has.
fn markup_end(text: &str) -> Option<usize> {
    for (begin, end) in [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")] {
        if let Some(rest) = text.strip_prefix(begin) {
            return rest.find(end).map(|at| begin.len() + at + end.len());
        }
    }
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

struct Reader {
    found: Labelled,
    open: Option<Open>,
}

impl Reader {
    fn text(&mut self, text: &str) {
        if let Some(open) = &mut self.open {
            open.push(&unescaped(text));
        }
    }

    /// Takes what stands between `<` and `>`, both included.
    fn markup(&mut self, markup: &str, at: usize) -> std::result::Result<(), String> {
        if let Some(content) = markup.strip_prefix("<![CDATA[") {
            let content = content.strip_suffix("]]>").unwrap_or(content);
            self.open.iter_mut().for_each(|open| open.push(content));
            return Ok(());
        }
        if markup.starts_with("<!") || markup.starts_with("<?") {
            return Ok(());
        }
        let inner = markup[1..markup.len() - 1].trim();
        let closes = inner.starts_with('/');
        let is_empty = inner.ends_with('/');
        let name = inner.trim_matches('/').split_whitespace().next().unwrap_or_default();
        match (name, closes, is_empty) {
            ("sentence", false, _) => self.begin(at, is_empty),
            ("sentence", true, _) => self.end(),
            ("del" | "ins", _, true) => Ok(()),
            ("del", false, _) => self.set(name, Edit::Both, Edit::Deleted),
            ("ins", false, _) => self.set(name, Edit::Both, Edit::Inserted),
            ("del", true, _) => self.set("/del", Edit::Deleted, Edit::Both),
            ("ins", true, _) => self.set("/ins", Edit::Inserted, Edit::Both),
            _ if self.open.is_none() => Ok(()),
            _ => Err(format!("{markup:.40} in a sentence; wanted <del> and <ins> alone")),
        }
    }

    fn begin(&mut self, at: usize, is_empty: bool) -> std::result::Result<(), String> {
        if self.open.is_some() {
            return Err("<sentence> in a <sentence>".into());
        }
        match is_empty {
            true => self.found.left_out += 1,
            false => {
                self.open = Some(Open { at, before: String::new(), after: String::new(), edit: Edit::Both });
            }
        }
        Ok(())
    }

    fn set(&mut self, tag: &str, from: Edit, to: Edit) -> std::result::Result<(), String> {
        match &mut self.open {
            None => Err(format!("<{tag}> outside of a <sentence>")),
            Some(open) if open.edit != from => {
                Err(format!("<{tag}> where none can be: edits are not nested"))
            }
            Some(open) => {
                open.edit = to;
                Ok(())
            }
        }
    }

    fn end(&mut self) -> std::result::Result<(), String> {
        let Some(open) = self.open.take() else { return Err("</sentence> without its <sentence>".into()) };
        if open.edit != Edit::Both {
            return Err("</sentence> in <del> or <ins>".into());
        }
        let [text, after] = [open.before, open.after].map(|text| spaced(&text));
        match text.is_empty() {
            true => self.found.left_out += 1,
            false => self.found.add([LabelledSentence { needs_edit: text != after, text }]),
        }
        Ok(())
    }
}

/// With one space for each run of white space, and none at the ends.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// With the characters of XML's own entities and of those by number.
fn unescaped(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        found.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = rest.find(';').and_then(|end| Some((character(&rest[1..end])?, end + 1)));
        let (character, length) = entity.unwrap_or(('&', 1));
        found.push(character);
        rest = &rest[length..];
    }
    found + rest
}

/// The character of an entity, by what stands between `&` and `;`.
fn character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}
