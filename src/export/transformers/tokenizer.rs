//! `tokenizer.json` and `tokenizer_config.json` for the library's `PreTrainedTokenizerFast`.
//!
//! Ids are the checkpoint's. Special tokens are cut out of a text before anything else; so where tokens are words, the end
//! of a last line without a line feed is no `<eos>` here: each stretch between two `<unk>` would end in one.

use super::vocabulary::{Special, Vocabulary};
use crate::config::Unit;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// The tokenizer with the special tokens of `vocabulary`.
pub(super) fn tokenizer(trained: &Tokenizer, vocabulary: &Vocabulary) -> Result<Value> {
    let mut json: Value = serde_json::from_str(&trained.to_json())
        .map_err(|error| Error::config(format!("the tokenizer cannot be written: {error}")))?;
    match trained.unit() {
        Unit::Word => complete_words(&mut json, vocabulary),
        Unit::Char | Unit::Byte => complete_symbols(&mut json, vocabulary),
        Unit::Bpe => json["post_processor"] = Value::Null, // it would add tokens that `rhn` does not
    }
    let declared = vocabulary.special().into_iter().map(declared);
    let others: Vec<Value> = json["added_tokens"].as_array().cloned().unwrap_or_default();
    let is_other = |token: &Value| vocabulary.special().iter().all(|special| token["id"] != special.id);
    let mut added: Vec<Value> = others.into_iter().filter(is_other).chain(declared).collect();
    added.sort_by_key(|token| token["id"].as_u64());
    json["added_tokens"] = added.into();
    Ok(json)
}

/// A special token as `added_tokens` has it.
fn declared(token: &Special) -> Value {
    json!({
        "id": token.id, "content": token.name, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// Line ends become the end token, and it becomes a line end again; blanks stand between words alone.
fn complete_words(json: &mut Value, vocabulary: &Vocabulary) {
    let end = &vocabulary.end.name;
    add_entries(json, vocabulary);
    json["normalizer"]["normalizers"][1] =
        json!({"type": "Replace", "pattern": {"String": "\n"}, "content": format!(" {end} ")});
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": end}, "content": "\n"},
        {"type": "Replace", "pattern": {"Regex": "\\A(?!\\n)"}, "content": " "},
        {"type": "Fuse"},
        {"type": "Replace", "pattern": {"Regex": "\\A |(?<=\\n) "}, "content": ""},
    ]});
}

/// What the vocabulary lacks is the unknown token; without one, the library leaves it out of the text.
fn complete_symbols(json: &mut Value, vocabulary: &Vocabulary) {
    let unknown = &vocabulary.unknown;
    if let Some(entries) = json["model"]["vocab"].as_object_mut() {
        entries.retain(|_, id| *id != unknown.id);
        entries.insert(unknown.name.clone(), unknown.id.into());
    }
    add_entries(json, vocabulary);
    json["model"]["unk_token"] = unknown.name.as_str().into();
}

fn add_entries(json: &mut Value, vocabulary: &Vocabulary) {
    if let Some(entries) = json["model"]["vocab"].as_object_mut() {
        entries.extend(vocabulary.added().map(|token| (token.name.clone(), token.id.into())));
    }
}

/// `tokenizer_config.json`. This class loads `tokenizer.json` as it is; others build a tokenizer of their own.
pub(super) fn config(vocabulary: &Vocabulary) -> Value {
    let mut config = special_tokens(vocabulary);
    config["tokenizer_class"] = "PreTrainedTokenizerFast".into();
    config["clean_up_tokenization_spaces"] = false.into();
    config["model_input_names"] = json!(["input_ids", "attention_mask"]);
    config["padding_side"] = "left".into(); // what is generated follows the text
    config
}

/// `special_tokens_map.json`.
pub(super) fn special_tokens(vocabulary: &Vocabulary) -> Value {
    json!({
        "unk_token": vocabulary.unknown.name,
        "bos_token": vocabulary.end.name,
        "eos_token": vocabulary.end.name,
        "pad_token": vocabulary.pad.name,
    })
}

#[cfg(test)]
mod tests {
    use super::{Tokenizer, Vocabulary, tokenizer};
    use crate::config::{CorpusConfig, Unit};
    use crate::data::Text;
    use crate::predict::tiny;

    const TEXT: &str = "to be or <unk> to be\nthat is : the question\n";

    /// What the library makes of the exported tokenizer: ids of `text`, and these as text.
    fn cut(unit: Unit, text: &str) -> (Vec<u32>, Vec<u32>, String) {
        let trained = tiny::tokenizer(unit, TEXT);
        let json = tokenizer(&trained, &Vocabulary::new(&trained)).unwrap().to_string();
        let exported = tokenizers::Tokenizer::from_bytes(json).unwrap();
        let encoding = exported.encode(text, true).unwrap();
        let decoded = exported.decode(encoding.get_ids(), false).unwrap();
        let wanted = trained.encode(&Text::from(text)).unwrap().tokens.to_vec();
        (encoding.get_ids().to_vec(), wanted, decoded)
    }

    #[test]
    fn every_unit_is_cut_to_the_checkpoints_ids_and_comes_back() {
        for unit in [Unit::Word, Unit::Char, Unit::Byte, Unit::Bpe] {
            for text in [TEXT, "\n\nthe question\n \nto be\n", "\n", ""] {
                let (found, wanted, decoded) = cut(unit, text);
                assert_eq!(found, wanted, "{unit:?} {text:?}");
                let spaced = if unit == Unit::Word { text.replace("\n \n", "\n\n") } else { text.into() };
                assert_eq!(decoded, spaced, "{unit:?}");
            }
        }
    }

    #[test]
    fn an_unfinished_line_of_words_has_no_end() {
        let (found, wanted, decoded) = cut(Unit::Word, "to be <unk> or");
        assert_eq!(found, wanted[..wanted.len() - 1]);
        assert_eq!(decoded, "to be <unk> or");
    }

    #[test]
    fn what_a_closed_vocabulary_lacks_is_an_id_of_its_own() {
        let corpus = CorpusConfig { unknown: false, ..tiny::corpus(Unit::Char) };
        let trained = Tokenizer::build(&corpus, &Text::from("ab\n")).unwrap();
        let json = tokenizer(&trained, &Vocabulary::new(&trained)).unwrap().to_string();
        let exported = tokenizers::Tokenizer::from_bytes(json).unwrap();
        assert_eq!(exported.encode("axb\n", true).unwrap().get_ids(), [1, 3, 2, 0]);
        assert_eq!(exported.get_vocab_size(true), 6);
    }
}
