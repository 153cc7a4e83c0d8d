//! `rhn data inspect` of a corpus of shards.

use crate::command::output::json_line;
use crate::data::shards::ShardCounts;
use crate::data::{ShardedCorpus, Tokenizer};
use crate::readable::grouped;
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// Counts what the shards of each split hold, and prints it. Fails if a shard cannot be read or cut into tokens.
pub(super) fn inspect(corpus: &ShardedCorpus, tokenizer: &Tokenizer, json: bool) -> anyhow::Result<()> {
    let (counts, sha256) = corpus.inspect(tokenizer)?;
    let rows: Vec<_> =
        ["train", "valid", "test"].into_iter().zip(corpus.splits.iter().map(Vec::len)).zip(counts).collect();
    let mut out = stdout().lock();
    if json {
        let split = |((split, shards), counts): &((&str, usize), ShardCounts)| -> Value {
            let ShardCounts { bytes, lines, tokens, longest, unseen } = *counts;
            json!({"split": split, "shards": shards, "bytes": bytes, "tokens": tokens, "lines": lines,
                   "longest_sentence": longest, "oov_tokens": unseen})
        };
        let report = json!({
            "corpus": corpus.name, "unit": tokenizer.unit(), "vocab_size": tokenizer.vocab_size(), "sha256": sha256,
            "splits": rows.iter().map(split).collect::<Vec<_>>(),
        });
        return Ok(json_line(&mut out, &report)?);
    }
    let size = grouped(tokenizer.vocab_size() as u64);
    let unit = tokenizer.unit().as_str();
    writeln!(out, "{}: shards; a vocabulary of {size} by {unit}, SHA-256 {sha256}", corpus.name)?;
    write!(out, "{:6}", "split")?;
    for head in ["shards", "bytes", "tokens", "sentences", "longest", "OOV"] {
        write!(out, "{head:>15}")?;
    }
    writeln!(out)?;
    for ((split, shards), counts) in rows {
        write!(out, "{split:6}")?;
        let ShardCounts { bytes, lines, tokens, longest, unseen } = counts;
        let counts = [Some(shards as u64), Some(bytes), Some(tokens), Some(lines), longest, Some(unseen)];
        for count in counts {
            write!(out, "{:>15}", count.map_or_else(|| "–".into(), grouped))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
