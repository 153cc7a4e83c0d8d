//! Normalizers of a `tokenizer.json` that both kinds of writers need.

use serde_json::{Value, json};

/// A byte order mark at the text's start.
pub(super) const BYTE_ORDER_MARK: &str = "\\A\\x{FEFF}";

/// A normalizer that replaces what a regular expression matches.
pub(super) fn replace_pattern(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
}

/// CR LF as LF.
pub(super) fn line_end_joiner() -> Value {
    json!({"type": "Replace", "pattern": {"String": "\r\n"}, "content": "\n"})
}

/// What characters and byte pairs are cut from: no byte order mark, and LF for CR LF.
pub(super) fn own_normalizer() -> Value {
    json!({"type": "Sequence", "normalizers": [replace_pattern(BYTE_ORDER_MARK, ""), line_end_joiner()]})
}
