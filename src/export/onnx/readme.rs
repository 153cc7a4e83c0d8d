//! The README of an exported directory.

use super::super::subject::Subject;
use crate::config::Unit;

/// What is there, and how it is used; `state` is each part of the state: layer, part, units.
pub(super) fn readme(subject: &Subject, state: &[(usize, usize, usize)]) -> String {
    let begin = match subject.tokenizer.line_end_id() {
        Some(id) => format!("{id}, the line end, which `rhn score` puts before a text"),
        None => "none: this vocabulary has no line end, so that the first token has no probability".into(),
    };
    let first = subject.tokenizer.line_end_id().unwrap_or(0);
    let last_line = match subject.tokenizer.unit() {
        Unit::Word => {
            " A last line without a line feed gets an `<eos>` too: take it away to continue the text."
        }
        _ => "",
    };
    let characters = match subject.about.from_characters {
        true => {
            "\nThe model computes word vectors from characters; those of the vocabulary were computed once and are in here.\n"
        }
        false => "",
    };
    let rows = |(k, part, units): &(usize, usize, usize)| {
        format!("| `state.{k}.{part}`, `next.{k}.{part}` | float32 | (batch, {units}) |\n")
    };
    let rows: String = state.iter().map(rows).collect();
    let vocabulary = subject.config.vocab_size;
    [
        format!("# {}\n\nExported by `rhn export --to onnx`: operators of version 17, in single precision.\n", subject.about.model),
        subject.about.facts(),
        format!(
            "\n`step.onnx` reads one token a batch row, `sequence.onnx` a window of tokens; their weights are the same. \
             Where there is a `weights.bin`, it must lie beside them.\n\n\
             | input or output | type | shape of `step.onnx`, `sequence.onnx` |\n| --- | --- | --- |\n\
             | `tokens` | int64 | (batch), (batch, time) |\n{rows}\
             | `logits` | float32 | (batch, {vocabulary}), (batch, time, {vocabulary}) |\n\n\
             `state` is zero before a text, and `next` of the call before after that. Softmax of `logits` is the \
             distribution of the token that follows. A text begins after the token {begin}.\n\
             `tokenizer.json` is for the library `tokenizers`.{last_line}\n{characters}"
        ),
        EXAMPLE.replace("FIRST", &first.to_string()),
    ]
    .concat()
}

const EXAMPLE: &str = r#"
```python
import numpy as np, onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("step.onnx")
state = {i.name: np.zeros((1, i.shape[1]), np.float32) for i in session.get_inputs() if i.name != "tokens"}
token, ids = FIRST, []
for _ in range(100):  # the likeliest text
    logits, *after = session.run(None, {"tokens": np.array([token]), **state})
    state = dict(zip(state, after))
    token = int(logits[0].argmax())
    ids.append(token)
print(tokenizer.decode(ids))
```
"#;
