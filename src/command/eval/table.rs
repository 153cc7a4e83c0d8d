//! An evaluation as a table.

use crate::eval::Evaluation;
use crate::eval::adapt::{Adaptation, DynamicSettings};
use crate::readable::{or_dash, perplexity};
use std::io::Write;

/// The settings that were used beyond the plain protocols.
fn rows(used: &Adaptation) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    rows.extend(used.temperature.map(|temperature| ("temperature", temperature.to_string())));
    rows.extend(used.dynamic.map(|dynamic| {
        let DynamicSettings { rate, decay, epsilon, segment, update } = dynamic;
        let group = update.name();
        let what = format!("rate {rate:e}, decay {decay:e}, epsilon {epsilon:e}, segment {segment}, {group}");
        ("dynamic", what)
    }));
    rows.extend(used.cache.map(|cache| {
        let what = format!("{} positions, theta {}, lambda {}", cache.window, cache.theta, cache.lambda);
        ("cache", what)
    }));
    rows.extend(
        used.tuned_tokens.map(|tokens| ("tuned on", format!("{tokens} tokens of the validation split"))),
    );
    rows
}

pub(super) fn table(out: &mut impl Write, found: &Evaluation) -> std::io::Result<()> {
    let part = if found.split == "all" { "the whole text".into() } else { format!("{} split", found.split) };
    writeln!(out, "{}, {part}, {} protocol", found.corpus, found.protocol)?;
    for (name, value) in rows(&found.adaptation) {
        writeln!(out, "{name:<16} {value}")?;
    }
    writeln!(out, "perplexity       {}", perplexity(found.nats_per_token, 4))?;
    if let Some(known) = found.perplexity_known {
        writeln!(out, "  without <unk>  {}", perplexity(known.ln(), 4))?;
    }
    writeln!(out, "nats per token   {:.5}", found.nats_per_token)?;
    writeln!(out, "bits per token   {:.5}", found.bits_per_token)?;
    writeln!(out, "bits per char    {}", or_dash(found.bits_per_char, 5))?;
    writeln!(out, "bits per byte    {}", or_dash(found.bits_per_byte, 5))?;
    let words = found.perplexity_words.map_or_else(|| "–".into(), |value| perplexity(value.ln(), 4));
    if !found.is_measured() {
        writeln!(out, "text over words  {words}")?;
        writeln!(out, "tokens           {} (their text was not measured)", found.tokens)?;
    } else {
        writeln!(out, "text over words  {words} (exp of all nats over {} words)", found.words)?;
        let one = |count: u64, thing: &str| format!("{count} {thing}{}", if count == 1 { "" } else { "s" });
        let characters = found.chars.map_or_else(|| "no characters".into(), |chars| one(chars, "character"));
        writeln!(out, "tokens           {} ({characters}, {})", found.tokens, one(found.bytes, "byte"))?;
    }
    writeln!(out, "not in vocab     {}", found.oov_tokens)?;
    let reasons = [&found.bits_per_char_absent, &found.bits_per_byte_absent, &found.perplexity_words_absent];
    let mut said = Vec::new();
    for reason in reasons.into_iter().flatten() {
        if !said.contains(&reason) {
            writeln!(out, "no figure where there is a dash: {reason}")?;
            said.push(reason);
        }
    }
    writeln!(out, "time             {:.1} s, {:.0} tokens/s", found.seconds, found.tokens_per_second)
}
