//! Sentences from vectors: the likeliest word after another, drawn ones, or the likeliest of several sentences (a beam).

mod beam;

use super::Drawn;
use super::draws::Draws;
use crate::data::{Text, Tokenizer};
use crate::error::{Error, Result};
use crate::model::latent::Gaussian;
use crate::model::{EncoderNoise, SentenceVae};
use crate::task::vae::{hide, sentence_end};
use candle_core::{D, DType, Device, Tensor};
use rhn_kernels::rng::Rng;

/// Writes sentences from vectors with the decoder of a model.
pub struct SentenceWriter<'a> {
    model: &'a SentenceVae,
    tokenizer: &'a Tokenizer,
    line_end: u32,
    /// What the decoder reads in place of every word, if it reads none.
    instead: Option<u32>,
    /// A token that is never written, say `<unk>`.
    forbidden: Option<u32>,
}

/// A sentence that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Its words, without the line end.
    pub ids: Vec<u32>,
    /// −ln p of its words and of its end, if it came to that, given the vector.
    pub nats: f64,
}

/// `count` vectors of the prior, `(count, size)`; vector number `index` is the same however many there are.
pub fn prior(model: &SentenceVae, seed: u64, count: usize) -> Result<Tensor> {
    let Some(mixture) = model.prior_numbers()? else { return normals(model, seed, "latent.prior", count) };
    vectors(model, count, |index| {
        let mut rng = Rng::keyed(seed, "latent.prior", index);
        let normals: Vec<f64> = (0..model.latent().size).map(|_| rng.normal()).collect();
        mixture.draw(rng.uniform(), &normals)
    })
}

/// `count` samples of the posterior of one sentence, of which the first is its mean, `(count, size)`.
pub fn around(model: &SentenceVae, posterior: &Gaussian, seed: u64, count: usize) -> Result<Tensor> {
    let mut drawn = vec![posterior.mean.clone()];
    let epsilon = normals(model, seed, "latent.posterior", count.saturating_sub(1).max(1))?;
    for row in 0..count.saturating_sub(1) {
        drawn.push(posterior.sample(&epsilon.narrow(0, row, 1)?)?);
    }
    Ok(Tensor::cat(&drawn, 0)?)
}

fn normals(model: &SentenceVae, seed: u64, purpose: &str, count: usize) -> Result<Tensor> {
    let size = model.latent().size;
    vectors(model, count, |index| {
        let mut rng = Rng::keyed(seed, purpose, index);
        (0..size).map(|_| rng.normal()).collect()
    })
}

/// `count` vectors, each made of its number, `(count, size)`.
fn vectors(model: &SentenceVae, count: usize, of: impl Fn(u64) -> Vec<f64>) -> Result<Tensor> {
    let numbers: Vec<f64> = (0..count as u64).flat_map(of).collect();
    let numbers = Tensor::from_vec(numbers, (count, model.latent().size), &Device::Cpu)?;
    Ok(numbers.to_dtype(model.precision().dtype())?.to_device(model.device())?)
}

impl<'a> SentenceWriter<'a> {
    /// A writer that may write any word. Fails if the vocabulary has no line end, or lacks the token that a decoder reads in
    /// place of words.
    pub fn new(model: &'a SentenceVae, tokenizer: &'a Tokenizer) -> Result<Self> {
        let instead = match (model.latent().inputless, tokenizer.unknown_id()) {
            (false, _) => None,
            (true, Some(unknown)) => Some(unknown),
            (true, None) => {
                let what = "its decoder reads <unk> in place of words, and the vocabulary has no <unk>";
                return Err(Error::config(what));
            }
        };
        Ok(Self { model, tokenizer, line_end: sentence_end(tokenizer)?, instead, forbidden: None })
    }

    /// The same, which never writes `token`.
    pub fn without(self, token: Option<u32>) -> Self {
        Self { forbidden: token, ..self }
    }

    /// The model.
    pub fn model(&self) -> &SentenceVae {
        self.model
    }

    /// The token that ends a sentence.
    pub(crate) fn line_end(&self) -> u32 {
        self.line_end
    }

    /// What the decoder reads of `inputs`, `(time, batch)` of u32: all of it, or in place of words `<unk>`.
    pub(crate) fn inputs(&self, inputs: &Tensor) -> Result<Tensor> {
        match self.instead {
            None => Ok(inputs.clone()),
            Some(unknown) => hide(inputs, unknown, |_| false),
        }
    }

    /// The units that sentences are written in.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.tokenizer
    }

    /// The words of a sentence, one line, and how many of its symbols the vocabulary lacks.
    ///
    /// # Errors
    /// If it has no word, none of the vocabulary, or more than one line.
    pub fn words(&self, sentence: &str) -> Result<(Vec<u32>, u64)> {
        let encoded = self.tokenizer.encode(&Text::new(sentence.as_bytes().to_vec(), "the sentence"))?;
        let mut ids = encoded.tokens.to_vec();
        if ids.last() == Some(&self.line_end) {
            ids.pop();
        }
        if ids.is_empty() && encoded.unseen > 0 {
            return Err(Error::config(format!("no word of {sentence:?} is in the vocabulary")));
        }
        if ids.is_empty() || ids.contains(&self.line_end) {
            return Err(Error::config(format!(
                "{sentence:?} is not one sentence: wanted one line with words"
            )));
        }
        Ok((ids, encoded.unseen))
    }

    /// The posterior of one sentence.
    pub fn posterior(&self, words: &[u32]) -> Result<Gaussian> {
        let matrix = Tensor::from_slice(words, (words.len(), 1), self.model.device())?;
        Ok(self.model.posterior(&matrix, &[words.len()], &EncoderNoise::default())?.detach())
    }

    /// The text of a sentence, on one line without its end.
    pub fn text(&self, written: &Written) -> String {
        let mut decoder = self.tokenizer.decoder();
        let mut text: String = written.ids.iter().map(|&id| decoder.push(id)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The likeliest word after another for each of `z`, `(count, size)`: sentences of at most `longest` words, without the
    /// forbidden one.
    pub fn greedy(&self, z: &Tensor, longest: usize) -> Result<Vec<Vec<u32>>> {
        let count = z.dim(0)?;
        let mut sentences = vec![Vec::new(); count];
        let mut ended = vec![false; count];
        let mut last = vec![self.line_end; count];
        let mut decoding = self.model.begin(z)?;
        let barred = self.forbidden.map(|token| self.barring(token)).transpose()?;
        for _ in 0..=longest {
            let (logits, after) = self.model.step(&last, &decoding)?;
            let logits = barred.as_ref().map_or(Ok(logits.clone()), |barred| logits.broadcast_add(barred))?;
            decoding = after;
            for (row, &id) in logits.argmax(D::Minus1)?.to_vec1::<u32>()?.iter().enumerate() {
                ended[row] |= id == self.line_end || sentences[row].len() == longest;
                if !ended[row] {
                    sentences[row].push(id);
                }
                last[row] = self.read(id);
            }
            if ended.iter().all(|&ended| ended) {
                break;
            }
        }
        Ok(sentences)
    }

    /// What added to logits leaves `token` no probability, `(vocabulary)`.
    fn barring(&self, token: u32) -> Result<Tensor> {
        let mut added = vec![0.0f32; self.tokenizer.vocab_size()];
        added[token as usize] = f32::NEG_INFINITY;
        let added = Tensor::from_vec(added, self.tokenizer.vocab_size(), self.model.device())?;
        Ok(added.to_dtype(self.model.precision().dtype())?)
    }

    /// A sentence of at most `longest` words for `z`, `(1, size)`, drawn word by word.
    ///
    /// # Errors
    /// If the model gives a logit that is not finite.
    pub(crate) fn draw(&self, z: &Tensor, draws: &mut Draws, longest: usize) -> Result<Written> {
        let mut written = Written { ids: Vec::new(), nats: 0.0 };
        let mut decoding = self.model.begin(z)?;
        let mut last = self.line_end;
        while written.ids.len() < longest {
            let (logits, after) = self.model.step(&[self.read(last)], &decoding)?;
            let logits = logits.squeeze(0)?.to_dtype(DType::F64)?.to_vec1()?;
            draws.check(&logits)?;
            let Drawn { id, nats } = draws.draw(&logits);
            written.nats += nats;
            if id == self.line_end {
                break;
            }
            draws.remember(id);
            written.ids.push(id);
            (decoding, last) = (after, id);
        }
        Ok(written)
    }

    /// What the decoder reads of `word`; a line end is before the first alone.
    fn read(&self, word: u32) -> u32 {
        match self.instead {
            Some(unknown) if word != self.line_end => unknown,
            _ => word,
        }
    }
}
