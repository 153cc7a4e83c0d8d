//! A directory that `AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)` and `AutoTokenizer` load.
//!
//! The model is in `modeling_rhn.py`, which goes with it. What the library needs and the vocabulary lacks (padding, a
//! beginning, an unknown token) becomes rows at the end of the embedding and of the output, see [`vocabulary`].

mod readme;
mod tokenizer;
mod vocabulary;

use super::Files;
use super::subject::Subject;
use crate::error::Result;
use crate::storage::{CONFIG, MODEL, TOKENIZER, save_tensors, to_json};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vocabulary::Vocabulary;

const CONFIGURATION: &str = include_str!("configuration_rhn.py");
const MODELING: &str = include_str!("modeling_rhn.py");

/// The directory's files.
pub(super) fn files(subject: &Subject) -> Result<Files> {
    let vocabulary = Vocabulary::new(&subject.tokenizer);
    Ok(vec![
        (CONFIG, to_json(&config(subject, &vocabulary)?)),
        ("configuration_rhn.py", CONFIGURATION.into()),
        ("modeling_rhn.py", MODELING.into()),
        (MODEL, save_tensors(&tensors(subject, &vocabulary)?)?),
        ("generation_config.json", to_json(&generation_config(&vocabulary))),
        (TOKENIZER, to_json(&tokenizer::tokenizer(&subject.tokenizer, &vocabulary)?)),
        ("tokenizer_config.json", to_json(&tokenizer::config(&vocabulary))),
        ("special_tokens_map.json", to_json(&tokenizer::special_tokens(&vocabulary))),
        ("README.md", readme::readme(subject, &vocabulary).into_bytes()),
    ])
}

fn config(subject: &Subject, vocabulary: &Vocabulary) -> Result<Value> {
    let shapes = |layer: &BTreeMap<String, Tensor>| -> Value {
        layer.iter().map(|(name, tensor)| (name.clone(), json!(tensor.dims()))).collect()
    };
    Ok(json!({
        "architectures": ["RhnForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_rhn.RhnConfig",
            "AutoModelForCausalLM": "modeling_rhn.RhnForCausalLM",
        },
        "model_type": subject.config.model_type,
        "dtype": "float32",
        "vocab_size": vocabulary.size(),
        "trained_vocab_size": vocabulary.trained,
        "embedding_size": subject.table.dim(1)?,
        "hidden_size": subject.config.spec.core.hidden_size(),
        "num_hidden_layers": subject.layers.len(),
        "core": subject.core,
        "layer_shapes": subject.layers.iter().map(shapes).collect::<Vec<_>>(),
        "components": subject.mixture.as_ref().map(|mixture| mixture.components),
        "tie_word_embeddings": subject.output.is_none(),
        "use_cache": true,
        "bos_token_id": vocabulary.end.id,
        "eos_token_id": vocabulary.end.id,
        "pad_token_id": vocabulary.pad.id,
        "ignored_token_ids": vocabulary.ignored(),
    }))
}

/// `rhn sample` does not draw `<unk>` either.
fn generation_config(vocabulary: &Vocabulary) -> Value {
    json!({
        "bos_token_id": vocabulary.end.id,
        "eos_token_id": vocabulary.end.id,
        "pad_token_id": vocabulary.pad.id,
        "suppress_tokens": [vocabulary.unknown.id, vocabulary.pad.id],
    })
}

/// The weights by the names of `modeling_rhn.py`. Of two tied ones there is one.
fn tensors(subject: &Subject, vocabulary: &Vocabulary) -> Result<BTreeMap<String, Tensor>> {
    let of_layer = |(k, layer): (usize, &BTreeMap<String, Tensor>)| -> Vec<(String, Tensor)> {
        layer.iter().map(|(name, tensor)| (format!("core.{k}.{name}"), tensor.clone())).collect()
    };
    let mut tensors: BTreeMap<_, _> = subject.layers.iter().enumerate().flat_map(of_layer).collect();
    tensors.insert("embedding.weight".into(), vocabulary.widen_table(&subject.table)?);
    if let Some(output) = &subject.output {
        tensors.insert("lm_head.weight".into(), vocabulary.widen_output(&output.t()?.contiguous()?)?);
    }
    if let Some(mixture) = &subject.mixture {
        tensors.insert("components.weight".into(), mixture.vectors.t()?.contiguous()?);
        tensors.insert("components.bias".into(), mixture.vectors_bias.clone());
        tensors.insert("mixture.weight".into(), mixture.prior.t()?.contiguous()?);
    }
    tensors.insert("lm_head.bias".into(), vocabulary.widen_bias(&subject.output_bias)?);
    Ok(tensors)
}
