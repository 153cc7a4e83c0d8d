//! The README of an exported directory: what it is and how it is used.

use super::super::subject::Subject;
use super::vocabulary::Vocabulary;
use crate::config::Unit;

/// A model card.
pub(super) fn readme(subject: &Subject, vocabulary: &Vocabulary) -> String {
    let about = &subject.about;
    let unit = subject.tokenizer.unit();
    [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [rhn, recurrent]\n---\n"
            .to_string(),
        format!("# {}\n", about.model),
        format!("A language model over {}, exported by `rhn export --to transformers`.\n", unit_name(unit)),
        about.facts(),
        USE.to_string(),
        tokens(vocabulary, unit),
        characters(about.from_characters).to_string(),
    ]
    .concat()
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Word => "words",
        Unit::Char => "characters",
        Unit::Byte => "bytes",
        Unit::Bpe => "byte pairs",
    }
}

const USE: &str = r#"
## Use
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(DIR, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)
begin = tokenizer.bos_token + "the "
ids = tokenizer(begin, return_tensors="pt", add_special_tokens=False)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100)[0], skip_special_tokens=True))
```
`trust_remote_code=True` runs `modeling_rhn.py` of this directory: read it first. The tokenizer needs no code, and loads with
`False` as well; without either, transformers 5 asks. It is tested with transformers 4.57, 5.0 and
5.24. Generation by greedy search, sampling and beam search, batches with padding on either side, and a loss for `labels`
work; the state is carried as `past_key_values`. There is no attention and no limit to the length of a text.
"#;

fn tokens(vocabulary: &Vocabulary, unit: Unit) -> String {
    let cell = |name: &str| name.replace('|', "\\|"); // a bar would end the cell
    let end = cell(&vocabulary.end.name);
    let unknown = cell(&vocabulary.unknown.name);
    let pad = cell(&vocabulary.pad.name);
    let begin = match (unit, vocabulary.line_end()) {
        (Unit::Word, _) => "It ends a line, and is trained.",
        (_, Some(_)) => "It is read as a line end, and never predicted.",
        (_, None) => "The vocabulary has no line end, so that it is read as nothing; it is never predicted.",
    };
    let unseen = match vocabulary.ignored().contains(&vocabulary.unknown.id) {
        true => "It is read as nothing, and has probability 0, as the vocabulary is closed.",
        false => "It is trained; `generate` does not draw it, see `generation_config.json`.",
    };
    let line = match unit {
        Unit::Word => format!(
            "A line feed is read as `{0}`; a last line without one has no `{0}`, where `rhn` adds one. \
             Where `generate` should go on over lines, give it `eos_token_id=None`.\n",
            vocabulary.end.name
        ),
        _ => String::new(),
    };
    format!(
        "\n## Tokens\nIds below {} are those of the checkpoint; the others were added, are never predicted (their output \
         bias is -10,000) and change no other probability.\n\n| token | id | |\n| --- | --- | --- |\n\
         | `{end}` | {} | begins a text. {begin} |\n\
         | `{unknown}` | {} | what the vocabulary lacks. {unseen} |\n\
         | `{pad}` | {} | padding: it makes no step |\n\n{line}\
         These strings in a text are read as the tokens. Nothing is put before a text: begin it with the `bos_token` to \
         have the probability of the first token too, as `rhn score` has it.\n",
        vocabulary.trained, vocabulary.end.id, vocabulary.unknown.id, vocabulary.pad.id
    )
}

fn characters(computed: bool) -> &'static str {
    if computed {
        "\n## Word vectors\nThe model was trained with word vectors that are computed from characters. The vectors of the \
         vocabulary were computed once and are the embedding here, so that other words are `<unk>`, also where `rhn score` \
         reads them by their bytes.\n"
    } else {
        ""
    }
}
