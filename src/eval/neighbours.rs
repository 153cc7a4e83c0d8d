//! Which words of the vocabulary a model's input vectors place nearest to a word (Kim et al., 2016, table 6).
//!
//! ```text
//! cosine(a, b) = a · b / (|a| |b|), 0 where one of them is zero
//! ```

use crate::checkpoint::Checkpoint;
use crate::config::nearest;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::model::layers::{Embedding, VectorStage};
use crate::model::spelling::Spelling;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;

/// The vectors of a vocabulary, and what is needed for those of other words.
pub(crate) struct Neighbourhood {
    tokenizer: Tokenizer,
    embedding: Box<dyn Embedding>,
    device: Device,
    stage: VectorStage,
    /// How words that the vocabulary lacks are spelled, if the vectors are computed from characters.
    spelling: Option<Spelling>,
    /// `(vocabulary, size)`, each of length 1 or 0.
    units: Tensor,
}

/// A word of the vocabulary and how near it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Neighbour<'a> {
    pub(crate) word: &'a str,
    pub(crate) cosine: f64,
}

/// What was found for a word.
pub(crate) struct Found<'a> {
    /// Whether it is in the vocabulary.
    pub(crate) is_known: bool,
    /// How many of its characters or bytes were read, if not all of them.
    pub(crate) cut_to: Option<usize>,
    /// Nearest first; of equal ones the one with the lower id.
    pub(crate) neighbours: Vec<Neighbour<'a>>,
}

impl Neighbourhood {
    /// The vocabulary of a language model, a sentence VAE or a classifier of sentences as its vectors are at `stage`.
    ///
    /// # Errors
    /// If the checkpoint is refused or reads no text, has no vectors of that stage, or one that is not finite.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        stage: VectorStage,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let embedding = checkpoint.embedding(precision, device)?;
        let tokenizer = checkpoint.read_tokenizer()?;
        let settings = &checkpoint.config.spec.embedding;
        let words = tokenizer.words();
        let has_highways = settings.highways().is_some_and(|highways| highways.layers > 0);
        if stage == VectorStage::BeforeHighway && !has_highways {
            return Err(Error::config(
                "--before-highway: the model has no highway layers between characters and words",
            ));
        }
        let spelling = settings.spell(words)?;
        let table = match (stage, &spelling) {
            (VectorStage::BeforeHighway, Some(spelling)) => {
                of_all(&*embedding, spelling, words, stage, device)?
            }
            _ => embedding.table()?,
        };
        let units = units(&table)?;
        Ok(Self { tokenizer, embedding, device: device.clone(), stage, spelling, units })
    }

    /// The `count` words nearest to `word`, which is not among them.
    ///
    /// # Errors
    /// If `word` is not in the vocabulary and has no vector, or one that is not finite.
    pub(crate) fn of(&self, word: &str, count: usize) -> Result<Found<'_>> {
        let words = self.tokenizer.words();
        let own = words.iter().position(|known| known == word);
        let (vector, cut_to) = match (own, &self.spelling) {
            (Some(id), _) => (self.units.narrow(0, id, 1)?, None),
            (None, Some(spelling)) => {
                let characters = spelling.spell(word)?.to_device(&self.device)?;
                let vector = self.embedding.of_characters(&characters, self.stage)?;
                (units(&vector)?, spelling.cut(word))
            }
            (None, None) => return Err(unseen(word, words)),
        };
        let products =
            self.units.matmul(&vector.t()?)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let cosines: Vec<f64> = products.into_iter().map(|cosine| cosine.clamp(-1.0, 1.0)).collect(); // but for rounding
        let mut order: Vec<usize> = (0..cosines.len()).filter(|&id| Some(id) != own).collect();
        order.sort_by(|&one, &other| cosines[other].total_cmp(&cosines[one]).then(one.cmp(&other)));
        let neighbour = |&id: &usize| Neighbour { word: &words[id], cosine: cosines[id] };
        Ok(Found {
            is_known: own.is_some(),
            cut_to,
            neighbours: order.iter().take(count).map(neighbour).collect(),
        })
    }
}

/// The vectors of the vocabulary at a stage that the model keeps no table of.
fn of_all(
    embedding: &dyn Embedding,
    spelling: &Spelling,
    words: &[String],
    stage: VectorStage,
    device: &Device,
) -> Result<Tensor> {
    const AT_ONCE: usize = 1024; // what is computed on the way would fill the memory for a large vocabulary
    let tables = spelling.tensor()?.to_device(device)?;
    let starts = (0..words.len()).step_by(AT_ONCE);
    let part = |start| -> Result<Tensor> {
        let characters = tables.narrow(0, start, AT_ONCE.min(words.len() - start))?.contiguous()?;
        embedding.of_characters(&characters, stage)
    };
    Ok(Tensor::cat(&starts.map(part).collect::<Result<Vec<_>>>()?, 0)?)
}

/// `(rows, size)` with each row divided by its length, on the CPU.
fn units(rows: &Tensor) -> Result<Tensor> {
    const LEAST: f64 = 1e-30; // a row of zeros stays one
    let rows = rows.to_device(&Device::Cpu)?;
    let lengths = rows.sqr()?.sum_keepdim(1)?.sqrt()?;
    if !lengths.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?.is_finite() {
        return Err(Error::tensor("embedding", "the vector of a word is not finite"));
    }
    Ok(rows.broadcast_div(&lengths.maximum(LEAST)?)?)
}

fn unseen(word: &str, words: &[String]) -> Error {
    let near = nearest(word, words.iter().map(String::as_str));
    let suggestion = near.map(|near| format!(" Did you mean {near:?}?")).unwrap_or_default();
    Error::config(format!(
        "{word:?} is not in the vocabulary, and the model has vectors of its words alone: wanted one of these, or a model \
         that reads characters.{suggestion}"
    ))
}
