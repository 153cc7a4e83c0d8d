//! A text in place of a corpus that is not on this machine: as large a vocabulary, its words
//! about as often as in the real one.
//!
//! Words follow Zipf's law in Mandelbrot's form, set so that a window of 20 × 35 has as many different ones (360) as
//! Penn Treebank's windows have on average; they have as many different characters, and the longest word is as
//! long. Characters and bytes are equally likely: nothing that is computed depends on them.

use crate::config::{CorpusConfig, TrainConfig, Unit};
use crate::data::registry::Entry;
use crate::data::{Corpus, Text, Tokenizer};
use crate::error::{Error, Result};
use crate::predict::STREAM_STEPS;
use rhn_kernels::rng::Rng;

/// Windows of the training text; it is then begun again.
const WINDOWS: usize = 32;
/// p(rank) ∝ 1 / (rank + SHIFT)^EXPONENT, ranks from 1.
const EXPONENT: f64 = 1.1;
const SHIFT: f64 = 1.5;
/// The characters of Penn Treebank's words, its two marks and those of `<eos>` and `<unk>` apart.
const CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789.,'-$&#/*:";
/// Characters of Penn Treebank's longest word.
const LONGEST: usize = 19;

/// A made-up corpus with as large a vocabulary as `entry` has in the units that `config` wants, and its
/// tokenizer. Fails if that size is not known.
pub(super) fn corpus(
    entry: &Entry,
    config: &CorpusConfig,
    train: &TrainConfig,
) -> Result<(Corpus, Tokenizer)> {
    let size = entry.types.filter(|_| config.unit == entry.unit).ok_or_else(|| {
        let unit = config.unit;
        Error::config(format!(
            "{} is not on this machine, and the size of its vocabulary by {unit:?} is not known; fetch it: \
             rhn data fetch {}",
            entry.name,
            entry.folder()
        ))
    })?;
    let symbols = symbols(config.unit, size);
    let plain = CorpusConfig { min_count: 1, vocab_size: 0, tokenizer: None, ..config.clone() };
    let tokenizer = Tokenizer::build(&plain, &Text::new(symbols.concat(), &entry.name))?;
    let length = |windows: usize| train.batch_size * (windows * train.bptt_steps + 1);
    let text = |purpose: &str, tokens: usize| draw(&symbols, config.unit, purpose, tokens);
    let corpus = Corpus {
        name: entry.name.clone(),
        train: text("train", length(WINDOWS)),
        valid: text("valid", length(2)),
        test: text("test", 4 * STREAM_STEPS + 1),
        sha256: String::new(),
    };
    Ok((corpus, tokenizer))
}

/// What a text is put together from, the likeliest first.
fn symbols(unit: Unit, size: usize) -> Vec<Vec<u8>> {
    let word = |rank: usize| match rank {
        0 => b"\n".to_vec(),
        1 => b"<unk> ".to_vec(),
        rank => [spell(rank - 2, rank + 1 == size).as_slice(), b" "].concat(),
    };
    let char = |rank: usize| char::from_u32('!' as u32 + rank as u32).unwrap_or(' ').to_string().into_bytes();
    match unit {
        Unit::Word | Unit::Bpe => (0..size).map(word).collect(),
        Unit::Char => (0..size).map(char).collect(),
        Unit::Byte => (0..size).map(|rank| vec![rank as u8]).collect(),
    }
}

/// The number as a word, its digits being characters; one of them is as long as the longest real one.
fn spell(mut number: usize, longest: bool) -> Vec<u8> {
    let mut word = vec![CHARACTERS[number % CHARACTERS.len()]];
    while number >= CHARACTERS.len() {
        number /= CHARACTERS.len();
        word.push(CHARACTERS[number % CHARACTERS.len()]);
    }
    if longest {
        word.resize(LONGEST, b'a');
    }
    word
}

fn draw(symbols: &[Vec<u8>], unit: Unit, purpose: &str, tokens: usize) -> Text {
    let weight = |rank: usize| match unit {
        Unit::Word | Unit::Bpe => (rank as f64 + 1.0 + SHIFT).powf(-EXPONENT),
        Unit::Char | Unit::Byte => 1.0,
    };
    let mut sum = 0.0;
    let below: Vec<f64> = (0..symbols.len())
        .map(|rank| {
            sum += weight(rank);
            sum
        })
        .collect();
    let mut rng = Rng::keyed(1, &format!("bench.{purpose}"), 0);
    let mut bytes = Vec::new();
    for _ in 0..tokens {
        let position = rng.uniform() * sum;
        let rank = below.partition_point(|&edge| edge <= position).min(symbols.len() - 1);
        bytes.extend_from_slice(&symbols[rank]);
    }
    Text::new(bytes, "made-up text")
}
