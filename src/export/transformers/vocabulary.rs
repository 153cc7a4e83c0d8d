//! The vocabulary of an export: the trained one, and at its end what the library needs and it lacks.
//!
//! Every exported model has a token for what is unknown, one that begins and ends a text, and one that pads. Where the
//! trained vocabulary has no such token, a row is added whose output bias is so low that its probability is 0. Such a row
//! either makes no step of the recurrence, or, for the beginning of a text, has the vector of the line end: `rhn score`
//! puts a line end before a text too. No other token could be declared special: the library drops special tokens from
//! what it decodes.

use crate::config::Unit;
use crate::data::Tokenizer;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// The output bias of an added token: e to this is 0 in every precision, and f16 holds it.
const NEVER: f32 = -1e4;

/// A token with a task of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Special {
    pub(super) name: String,
    pub(super) id: u32,
    row: Row,
}

/// Where a token's vector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// It was trained.
    Trained,
    /// It is that of another token.
    Copied(u32),
    /// There is none: the token makes no step.
    Ignored,
}

/// What the ids of an export mean.
pub(super) struct Vocabulary {
    /// Ids below are those of the checkpoint.
    pub(super) trained: usize,
    pub(super) unknown: Special,
    /// Begins and ends a text.
    pub(super) end: Special,
    pub(super) pad: Special,
}

impl Vocabulary {
    /// The vocabulary of `tokenizer` with what it lacks.
    pub(super) fn new(tokenizer: &Tokenizer) -> Self {
        let is_word = tokenizer.unit() == Unit::Word;
        let trained = tokenizer.vocab_size();
        let mut next = trained as u32;
        let mut add = |name: String, row: Row| {
            next += 1;
            Special { name, id: next - 1, row }
        };
        // Where tokens are no words, `<unk>` in a text is five characters, as it is in Penn Treebank's.
        let unknown = match tokenizer.unknown_id() {
            Some(id) if matches!(tokenizer.unit(), Unit::Char | Unit::Byte) => {
                Special { name: free_name(tokenizer, "|unk|"), id, row: Row::Trained }
            }
            Some(id) => Special { name: tokenizer.token(id).into(), id, row: Row::Trained },
            None => add(free_name(tokenizer, if is_word { "unk" } else { "|unk|" }), Row::Ignored),
        };
        let end = match tokenizer.line_end_id() {
            Some(id) if is_word => Special { name: tokenizer.token(id).into(), id, row: Row::Trained },
            Some(id) => add(free_name(tokenizer, "eos"), Row::Copied(id)),
            None => add(free_name(tokenizer, "eos"), Row::Ignored),
        };
        let pad = add(free_name(tokenizer, "pad"), Row::Ignored);
        Self { trained, unknown, end, pad }
    }

    /// How many ids there are.
    pub(super) fn size(&self) -> usize {
        self.trained + self.added().count()
    }

    /// Every special token in the order of ids.
    pub(super) fn special(&self) -> Vec<&Special> {
        let mut special = vec![&self.unknown, &self.end, &self.pad];
        special.sort_by_key(|token| token.id);
        special
    }

    /// Those that the trained vocabulary lacks, in the order of their ids.
    pub(super) fn added(&self) -> impl Iterator<Item = &Special> {
        self.special().into_iter().filter(|token| token.row != Row::Trained)
    }

    /// The tokens that make no step.
    pub(super) fn ignored(&self) -> Vec<u32> {
        self.added().filter(|token| token.row == Row::Ignored).map(|token| token.id).collect()
    }

    /// The token whose vector the beginning of a text has, where that is not its own.
    pub(super) fn line_end(&self) -> Option<u32> {
        match self.end.row {
            Row::Copied(id) => Some(id),
            Row::Trained | Row::Ignored => None,
        }
    }

    /// `(trained, size)` to `(all, size)`.
    pub(super) fn widen_table(&self, table: &Tensor) -> Result<Tensor> {
        let row = |token: &Special| match token.row {
            Row::Copied(id) => table.narrow(0, id as usize, 1),
            Row::Trained | Row::Ignored => Tensor::zeros((1, table.dim(1)?), table.dtype(), table.device()),
        };
        self.widen(table, row)
    }

    /// `(trained, hidden)` to `(all, hidden)`.
    pub(super) fn widen_output(&self, weight: &Tensor) -> Result<Tensor> {
        self.widen(weight, |_| Tensor::zeros((1, weight.dim(1)?), weight.dtype(), weight.device()))
    }

    /// `(trained)` to `(all)`.
    pub(super) fn widen_bias(&self, bias: &Tensor) -> Result<Tensor> {
        self.widen(bias, |_| Tensor::full(NEVER, 1, bias.device())?.to_dtype(DType::F32))
    }

    fn widen(
        &self,
        trained: &Tensor,
        row: impl Fn(&Special) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let rows = self.added().map(row).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&[vec![trained.clone()], rows].concat(), 0)?)
    }
}

/// `<name>`, or with bars around the name until the vocabulary has no such token.
fn free_name(tokenizer: &Tokenizer, name: &str) -> String {
    let named = format!("<{name}>");
    match tokenizer.words().contains(&named) {
        true => free_name(tokenizer, &format!("|{name}|")),
        false => named,
    }
}

#[cfg(test)]
mod tests {
    use super::Vocabulary;
    use crate::config::{CorpusConfig, Unit};
    use crate::data::{Text, Tokenizer};
    use crate::predict::tiny;
    use candle_core::{Device, Tensor};

    #[test]
    fn words_have_an_end_of_their_own_and_get_padding() {
        let tokenizer = tiny::tokenizer(Unit::Word, "a b\nb <unk>\n"); // b, <eos>, a, <unk>
        let vocabulary = Vocabulary::new(&tokenizer);
        let names: Vec<_> = vocabulary.special().iter().map(|token| (token.name.clone(), token.id)).collect();
        let end = tokenizer.line_end_id().unwrap();
        let mut wanted = vec![
            ("<eos>".into(), end),
            ("<unk>".into(), tokenizer.unknown_id().unwrap()),
            ("<pad>".into(), 4),
        ];
        wanted.sort_by_key(|&(_, id)| id);
        assert_eq!(names, wanted);
        assert_eq!((vocabulary.size(), vocabulary.ignored()), (5, vec![4]));
        assert_eq!(vocabulary.line_end(), None);
    }

    #[test]
    fn a_closed_vocabulary_of_characters_gets_rows_that_are_never_predicted() {
        let corpus = CorpusConfig { unknown: false, ..tiny::corpus(Unit::Char) };
        let tokenizer = Tokenizer::build(&corpus, &Text::from("ab\n")).unwrap(); // line feed, a, b
        let vocabulary = Vocabulary::new(&tokenizer);
        let added: Vec<_> = vocabulary.added().map(|token| (token.name.as_str(), token.id)).collect();
        assert_eq!(added, [("<|unk|>", 3), ("<eos>", 4), ("<pad>", 5)]);
        assert_eq!(vocabulary.ignored(), [3, 5]);
        assert_eq!(vocabulary.line_end(), Some(0));
        let table = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        let wide = vocabulary.widen_table(&table).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(wide[3..], [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]);
        let bias = Tensor::new(&[0.5f32, 0.25, 0.0], &Device::Cpu).unwrap();
        let wide = vocabulary.widen_bias(&bias).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(wide, [0.5, 0.25, 0.0, -1e4, -1e4, -1e4]);
    }

    #[test]
    fn a_name_that_the_vocabulary_has_is_not_taken() {
        let tokenizer = tiny::tokenizer(Unit::Word, "<pad> a\n");
        assert_eq!(Vocabulary::new(&tokenizer).pad.name, "<|pad|>");
    }
}
