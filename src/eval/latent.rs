//! How well a sentence VAE explains sentences: the evidence lower bound, an importance-weighted one, and how much of a
//! sentence its vector holds.
//!
//! ```text
//! −ELBO = −ln p(x | z) + KL(q(z | x) ‖ p)             z ~ q; a bound from above on −ln p(x)
//! IW    = −ln 1/S Σ_s p(x | z_s) p(z_s) / q(z_s | x)  tighter the more samples (Burda et al., 2016)
//! ```

use super::information::Posteriors;
use super::log_sum::ln_of_sum;
use super::refine::{Covariance, Refinement, normal};
use super::{Evaluation, EvaluationProgress};
use crate::data::items::{Items, SentenceBatch};
use crate::error::{Error, Result};
use crate::model::EncoderNoise;
use crate::model::latent::{Gaussian, LatentConfig};
use crate::model::sequences::Lengths;
use crate::sample::sentences::SentenceWriter;
use candle_core::{DType, Tensor};
use rhn_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Sentences that are read together.
const TOGETHER: usize = 64;

/// A number of the vector is active if its mean has at least this variance over the sentences (Burda et al., 2016).
const ACTIVE: f64 = 0.01;

/// A mean bound of fewer nats is none: −ln p is never below 0, and of posteriors that were learned what is drawn of the KL misses
/// by much less.
const IMPOSSIBLE: f64 = -1.0;

/// Fewer nats of KL than this are none.
const LEAST_KL: f64 = 0.1;

/// What is said of a model that does not use its vector.
pub const UNUSED: &str = "the latent variable is not used: the KL is below 0.1 nats a sentence. A lower train.latent.word_keep, \
    a longer train.latent.schedule, train.latent.free_bits or a smaller decoder make it needed";

/// What is measured of a sentence VAE.
#[derive(Clone, Copy)]
pub struct LatentSettings<'a> {
    /// Vectors that are drawn for each sentence.
    pub samples: usize,
    /// What they are drawn from.
    pub seed: u64,
    /// Whether sentences are written from their mean vectors and compared.
    pub rebuilds: bool,
    /// How the posteriors are fitted to their sentences, if they are.
    pub refinement: Option<Refinement<'a>>,
}

impl Default for LatentSettings<'_> {
    fn default() -> Self {
        Self { samples: 1, seed: 1, rebuilds: false, refinement: None }
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
    /// The KL of the posterior from the prior, exact; from a learned prior what its Gaussian lacks is a mean over the samples.
    pub kl_nats: f64,
    /// Their sum, −ELBO.
    pub elbo_nats: f64,
    /// How many Gaussians the prior is a mixture of, if it is learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior_components: Option<u64>,
    /// Steps in which each posterior was fitted to its sentence; the figures are then of the fitted ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refine_steps: Option<u64>,
    /// The rate of the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refine_rate: Option<f64>,
    /// Whether variances alone were fitted or all covariances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refine_covariance: Option<Covariance>,
    /// −ELBO of the encoder's own posteriors, where they were fitted; what is above `elbo_nats` of it is the encoder's part of
    /// the bound's slack, as far as the steps find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder_elbo_nats: Option<f64>,
    /// exp of all nats over the words, the sentences' ends not counted, as some papers have it.
    pub perplexity_no_eos: f64,
    /// The importance-weighted bound, of several samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iw_nats: Option<f64>,
    /// Numbers of the vector whose mean differs from sentence to sentence.
    pub active_units: u64,
    /// I(x; z), how much a vector says of which sentence it was drawn for; of at most 20,000 of the sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_information: Option<f64>,
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

/// What the vectors that were drawn for some sentences give, summed over the sentences.
#[derive(Default)]
struct Drawn {
    /// −ln p(x | z), the mean over the vectors.
    reconstruction: f64,
    /// What is drawn of the KL from a learned prior, the mean over the vectors.
    prior: f64,
    /// The importance-weighted bound.
    importance: f64,
}

/// The sums over the sentences so far.
struct Sums<'a> {
    settings: LatentSettings<'a>,
    reconstruction: f64,
    kl: f64,
    importance: f64,
    /// The bound of the posteriors before they were fitted.
    encoder_bound: f64,
    /// Of the means, number by number, and of their squares.
    means: [Vec<f64>; 2],
    posteriors: Posteriors,
    prior_components: Option<usize>,
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
    settings: LatentSettings<'_>,
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
    let mut sums = Sums::new(settings, writer.model().latent(), sentences.len());
    let mut done = 0;
    for numbers in order.chunks(TOGETHER) {
        let batch = sentences.batch(numbers, writer.line_end(), writer.model().device())?;
        sums.add(writer, sentences, numbers, &batch, &mut || progress(done, sentences.predicted()))?;
        done += batch.predicted();
        progress(done, sentences.predicted())?;
    }
    let figures = sums.figures(sentences);
    for bound in figures.encoder_elbo_nats.into_iter().chain([figures.elbo_nats]) {
        if !(bound.is_finite() && bound > IMPOSSIBLE) {
            let why = match bound.is_finite() {
                true => {
                    ", and no text has less than 0: the KL from the learned prior is too large to be drawn"
                }
                false => "",
            };
            let what = format!("the model gives {corpus} ({split}) a bound of {bound} nats a sentence{why}");
            return Err(Error::NotFinite { step: 0, what });
        }
    }
    let counts = [sentences.predicted(), sentences.words()];
    Ok(Evaluation::of_sentences([corpus, split], figures, counts, start.elapsed().as_secs_f64()))
}

impl<'a> Sums<'a> {
    fn new(settings: LatentSettings<'a>, latent: &LatentConfig, sentences: usize) -> Self {
        let size = latent.size;
        Self {
            prior_components: latent.prior_components,
            settings,
            reconstruction: 0.0,
            kl: 0.0,
            importance: 0.0,
            encoder_bound: 0.0,
            means: [vec![0.0; size], vec![0.0; size]],
            posteriors: Posteriors::new(size, sentences),
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
        let mut posterior =
            writer.model().posterior(&batch.words()?, &batch.lengths, &EncoderNoise::default())?.detach();
        if let Some(refinement) = self.settings.refinement {
            let kl = numbers_of(&writer.model().divergence(&posterior)?)?.iter().sum::<f64>();
            let drawn = self.draw(writer, &posterior, (numbers, batch), check)?;
            self.encoder_bound += drawn.reconstruction + drawn.prior + kl;
            let inputs = &writer.inputs(&batch.inputs)?;
            let mut streams = self.streams("latent.refinement", numbers);
            posterior = refinement.refined(&posterior, (batch, inputs), &mut streams, check)?;
        }
        self.kl += numbers_of(&writer.model().divergence(&posterior)?)?.iter().sum::<f64>();
        self.posteriors.add(&posterior)?;
        let [sums, squares] = &mut self.means;
        for mean in posterior.mean.to_dtype(DType::F64)?.to_vec2::<f64>()? {
            for ((sum, square), value) in sums.iter_mut().zip(&mut *squares).zip(mean) {
                *sum += value;
                *square += value * value;
            }
        }
        let drawn = self.draw(writer, &posterior, (numbers, batch), check)?;
        self.reconstruction += drawn.reconstruction;
        self.kl += drawn.prior;
        self.importance += drawn.importance;
        if self.settings.rebuilds {
            self.rebuild(writer, &posterior, sentences, numbers)?;
        }
        self.sentences += numbers.len() as u64;
        Ok(())
    }

    /// What is drawn for each of the sentences `numbers`, from streams that others beside it do not change.
    fn streams(&self, purpose: &str, numbers: &[u32]) -> Vec<Rng> {
        numbers.iter().map(|&number| Rng::keyed(self.settings.seed, purpose, number.into())).collect()
    }

    /// What the drawn vectors give. A sentence's vectors do not depend on its batch.
    fn draw(
        &self,
        writer: &SentenceWriter<'_>,
        posterior: &Gaussian,
        (numbers, batch): (&[u32], &SentenceBatch),
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Drawn> {
        let model = writer.model();
        let inputs = writer.inputs(&batch.inputs)?;
        let inside = Lengths::new(inputs.dim(0)?, batch.steps())?.mask(DType::F64, model.device())?;
        let mut streams = self.streams("latent.evaluation", numbers);
        let size = model.latent().size;
        let mut drawn = Drawn::default();
        let mut weights = vec![Vec::new(); numbers.len()];
        for _ in 0..self.settings.samples {
            check()?;
            let epsilon = normal(&mut streams, size, model.precision().dtype(), model.device())?;
            let z = posterior.sample(&epsilon)?;
            let nats = model.nats(&inputs, &batch.targets, &z, &Default::default())?.detach();
            let nats = (nats.to_dtype(DType::F64)? * &inside)?.sum(0)?;
            let ratios = numbers_of(&model.log_prior_ratio(posterior, &epsilon)?)?;
            let nats = numbers_of(&nats)?;
            drawn.reconstruction += nats.iter().sum::<f64>() / self.settings.samples as f64;
            if let Some(remainder) = model.prior_remainder(&z)? {
                drawn.prior += numbers_of(&remainder)?.iter().sum::<f64>() / self.settings.samples as f64;
            }
            for ((weights, nats), ratio) in weights.iter_mut().zip(nats).zip(ratios) {
                weights.push(ratio - nats);
            }
        }
        let samples = (self.settings.samples as f64).ln();
        let of_sentence = |weights: &Vec<f64>| samples - ln_of_sum(weights.iter().copied());
        drawn.importance = weights.iter().map(of_sentence).sum();
        Ok(drawn)
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
            prior_components: self.prior_components.map(|components| components as u64),
            refine_steps: self.settings.refinement.map(|refinement| refinement.steps as u64),
            refine_rate: self.settings.refinement.map(|refinement| refinement.rate),
            refine_covariance: self.settings.refinement.map(|refinement| refinement.covariance),
            encoder_elbo_nats: self.settings.refinement.map(|_| self.encoder_bound / count),
            perplexity_no_eos: (elbo / sentences.words() as f64).exp(),
            iw_nats: (self.settings.samples > 1).then(|| self.importance / count),
            active_units: variances.filter(|&variance| variance > ACTIVE).count() as u64,
            mutual_information: Some(self.posteriors.information(self.settings.seed))
                .filter(|nats| nats.is_finite()),
            reconstruction_accuracy: share(self.rebuilt_sentences, count),
            word_accuracy: share(self.rebuilt_words, sentences.words() as f64),
        }
    }
}

/// The numbers of a tensor of any shape.
fn numbers_of(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
