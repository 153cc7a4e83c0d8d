//! How well a sentence VAE explains sentences: the evidence lower bound, an importance-weighted one, and how much of a
//! sentence its vector holds.
//!
//! ```text
//! −ELBO = −ln p(x | z) + KL(q(z | x) ‖ p)             z ~ q; a bound from above on −ln p(x)
//! IW    = −ln 1/S Σ_s p(x | z_s) p(z_s) / q(z_s | x)  tighter the more samples (Burda et al., 2016)
//! ```

use super::log_sum::ln_of_sum;
use super::{Evaluation, EvaluationProgress};
use crate::data::items::{Items, SentenceBatch};
use crate::error::{Error, Result};
use crate::model::latent::Gaussian;
use crate::model::sequences::Lengths;
use crate::sample::sentences::SentenceWriter;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Sentences that are read together.
const TOGETHER: usize = 64;

/// A number of the vector is active if its mean has at least this variance over the sentences (Burda et al., 2016).
const ACTIVE: f64 = 0.01;

/// Fewer nats of KL than this are none.
const LEAST_KL: f64 = 0.1;

/// What is said of a model that does not use its vector.
pub const UNUSED: &str = "the latent variable is not used: the KL is below 0.1 nats a sentence. A lower train.latent.word_keep, \
    a longer train.latent.schedule, train.latent.free_bits or a smaller decoder make it needed";

/// What is measured of a sentence VAE.
#[derive(Clone, Copy, Debug)]
pub struct LatentSettings {
    /// Vectors that are drawn for each sentence.
    pub samples: usize,
    /// What they are drawn from.
    pub seed: u64,
    /// Whether sentences are written from their mean vectors and compared.
    pub rebuilds: bool,
}

impl Default for LatentSettings {
    fn default() -> Self {
        Self { samples: 1, seed: 1, rebuilds: false }
    }
}

/// What was measured of a sentence VAE; nats are means over sentences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatentFigures {
    /// Sentences that were measured.
    pub sentence_count: u64,
    /// Sentences that were left out because they are longer than `corpus.longest_sentence`.
    pub dropped_sentences: u64,
    /// Vectors that were drawn for each sentence.
    pub samples: u64,
    /// −ln p(x | z), the mean over the samples.
    pub reconstruction_nats: f64,
    /// The KL of the posterior from the prior, exact.
    pub kl_nats: f64,
    /// Their sum, −ELBO.
    pub elbo_nats: f64,
    /// exp of all nats over the words, the sentences' ends not counted, as some papers have it.
    pub perplexity_no_eos: f64,
    /// The importance-weighted bound, of several samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iw_nats: Option<f64>,
    /// Numbers of the vector whose mean differs from sentence to sentence.
    pub active_units: u64,
    /// The share of sentences that the likeliest words after the mean vector give back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction_accuracy: Option<f64>,
    /// The share of words that they give back at their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word_accuracy: Option<f64>,
}

impl LatentFigures {
    /// The bound and its parts, for people.
    pub fn bound(&self) -> String {
        let Self { elbo_nats, reconstruction_nats, kl_nats, .. } = self;
        format!(
            "{elbo_nats:.3} nats a sentence (reconstruction {reconstruction_nats:.3} and KL {kl_nats:.3})"
        )
    }

    /// Whether the decoder does without the vector.
    pub fn is_unused(&self) -> bool {
        self.kl_nats < LEAST_KL
    }
}

/// The sums over the sentences so far.
struct Sums {
    settings: LatentSettings,
    reconstruction: f64,
    kl: f64,
    importance: f64,
    /// Of the means, number by number, and of their squares.
    means: [Vec<f64>; 2],
    rebuilt_sentences: u64,
    rebuilt_words: u64,
    sentences: u64,
}

/// The model of `writer` on sentences.
///
/// # Errors
/// If there is no sentence, a number is not finite, or `progress` ends it.
pub fn evaluate(
    writer: &SentenceWriter<'_>,
    [corpus, split]: [&str; 2],
    sentences: &Items,
    settings: LatentSettings,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let start = Instant::now();
    if sentences.is_empty() {
        let dropped = match sentences.dropped {
            0 => String::new(),
            count => format!(" ({count} left out, longer than corpus.longest_sentence)"),
        };
        return Err(Error::data(
            corpus,
            format!("has no sentences in its {split} split to evaluate{dropped}"),
        ));
    }
    let mut order: Vec<u32> = (0..sentences.len() as u32).collect();
    order.sort_by_key(|&number| sentences.get(number as usize).len());
    let size = writer.model().latent().size;
    let mut sums = Sums::new(settings, size);
    let mut done = 0;
    for numbers in order.chunks(TOGETHER) {
        let batch = sentences.batch(numbers, writer.line_end(), writer.model().device())?;
        sums.add(writer, sentences, numbers, &batch, &mut || progress(done, sentences.predicted()))?;
        done += batch.predicted();
        progress(done, sentences.predicted())?;
    }
    let figures = sums.figures(sentences);
    if !figures.elbo_nats.is_finite() {
        let what =
            format!("the model gives a sentence of {corpus} ({split}) a bound of {}", figures.elbo_nats);
        return Err(Error::NotFinite { step: 0, what });
    }
    let counts = [sentences.predicted(), sentences.words()];
    Ok(Evaluation::of_sentences([corpus, split], figures, counts, start.elapsed().as_secs_f64()))
}

impl Sums {
    fn new(settings: LatentSettings, size: usize) -> Self {
        Self {
            settings,
            reconstruction: 0.0,
            kl: 0.0,
            importance: 0.0,
            means: [vec![0.0; size], vec![0.0; size]],
            rebuilt_sentences: 0,
            rebuilt_words: 0,
            sentences: 0,
        }
    }

    /// Adds the sentences `numbers`, which are those of `batch`; `check`, asked before each draw, may end it.
    fn add(
        &mut self,
        writer: &SentenceWriter<'_>,
        sentences: &Items,
        numbers: &[u32],
        batch: &SentenceBatch,
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let posterior = writer.model().posterior(&batch.words()?, &batch.lengths)?.detach();
        self.kl += numbers_of(&posterior.divergence()?)?.iter().sum::<f64>();
        let [sums, squares] = &mut self.means;
        for mean in posterior.mean.to_dtype(DType::F64)?.to_vec2::<f64>()? {
            for ((sum, square), value) in sums.iter_mut().zip(&mut *squares).zip(mean) {
                *sum += value;
                *square += value * value;
            }
        }
        self.draw(writer, &posterior, (numbers, batch), check)?;
        if self.settings.rebuilds {
            self.rebuild(writer, &posterior, sentences, numbers)?;
        }
        self.sentences += numbers.len() as u64;
        Ok(())
    }

    /// −ln p(x | z) of the drawn vectors, and their weights. A sentence's vectors do not depend on its batch.
    fn draw(
        &mut self,
        writer: &SentenceWriter<'_>,
        posterior: &Gaussian,
        (numbers, batch): (&[u32], &SentenceBatch),
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let model = writer.model();
        let inputs = writer.inputs(&batch.inputs)?;
        let inside = Lengths::new(inputs.dim(0)?, batch.steps())?.mask(DType::F64, model.device())?;
        let stream = |&number: &u32| Rng::keyed(self.settings.seed, "latent.evaluation", number.into());
        let mut streams: Vec<Rng> = numbers.iter().map(stream).collect();
        let shape = (numbers.len(), model.latent().size);
        let mut weights = vec![Vec::with_capacity(self.settings.samples); numbers.len()];
        for _ in 0..self.settings.samples {
            check()?;
            let drawn =
                streams.iter_mut().flat_map(|rng| (0..shape.1).map(|_| rng.normal()).collect::<Vec<_>>());
            let epsilon = Tensor::from_vec(drawn.collect(), shape, &Device::Cpu)?;
            let epsilon = epsilon.to_dtype(model.precision().dtype())?.to_device(model.device())?;
            let z = posterior.sample(&epsilon)?;
            let nats = model.nats(&inputs, &batch.targets, &z, &Default::default())?.detach();
            let nats = (nats.to_dtype(DType::F64)? * &inside)?.sum(0)?;
            let ratios = numbers_of(&posterior.log_prior_ratio(&epsilon)?)?;
            let nats = numbers_of(&nats)?;
            self.reconstruction += nats.iter().sum::<f64>() / self.settings.samples as f64;
            for ((weights, nats), ratio) in weights.iter_mut().zip(nats).zip(ratios) {
                weights.push(ratio - nats);
            }
        }
        let samples = (self.settings.samples as f64).ln();
        self.importance +=
            weights.iter().map(|weights| samples - ln_of_sum(weights.iter().copied())).sum::<f64>();
        Ok(())
    }

    /// How much of the sentences the likeliest words after their mean vectors give back.
    fn rebuild(
        &mut self,
        writer: &SentenceWriter<'_>,
        posterior: &Gaussian,
        sentences: &Items,
        numbers: &[u32],
    ) -> Result<()> {
        let given = || numbers.iter().map(|&number| sentences.get(number as usize));
        let longest = given().map(<[u32]>::len).max().unwrap_or(0) + 1; // one word more shows that a sentence goes on
        for (given, rebuilt) in given().zip(writer.greedy(&posterior.mean, longest)?) {
            self.rebuilt_sentences += u64::from(given == rebuilt);
            self.rebuilt_words += given.iter().zip(&rebuilt).filter(|(a, b)| a == b).count() as u64;
        }
        Ok(())
    }

    fn figures(&self, sentences: &Items) -> LatentFigures {
        let count = self.sentences as f64;
        let elbo = self.reconstruction + self.kl;
        let [sums, squares] = &self.means;
        let variances = sums.iter().zip(squares).map(|(sum, square)| square / count - (sum / count).powi(2));
        let share = |found: u64, of: f64| self.settings.rebuilds.then(|| found as f64 / of);
        LatentFigures {
            sentence_count: self.sentences,
            dropped_sentences: sentences.dropped,
            samples: self.settings.samples as u64,
            reconstruction_nats: self.reconstruction / count,
            kl_nats: self.kl / count,
            elbo_nats: elbo / count,
            perplexity_no_eos: (elbo / sentences.words() as f64).exp(),
            iw_nats: (self.settings.samples > 1).then(|| self.importance / count),
            active_units: variances.filter(|&variance| variance > ACTIVE).count() as u64,
            reconstruction_accuracy: share(self.rebuilt_sentences, count),
            word_accuracy: share(self.rebuilt_words, sentences.words() as f64),
        }
    }
}

/// The numbers of a tensor of any shape.
fn numbers_of(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
