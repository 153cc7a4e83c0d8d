//! The model's step, in numbers that do not depend on the machine.
//!
//! Single precision on the CPU; products by fused multiply-adds along the inner dimension in order, one accumulator each;
//! everything else by operations that IEEE 754 rounds one way, in the order of the kernels. AVX2, AVX-512 and NEON do that
//! at full speed, [`InstructionSet::fused`] on other processors. Rows and threads share out whole sums, never parts of one.
//! The step reads one token of each row at a time, always of all rows.

use crate::config::CoreConfig;
use crate::error::{Error, Result};
use crate::model::output::OutputKind;
use crate::model::{FrozenModel, Noise, State};
use crate::predict::Loaded;
use candle_core::{Device, Tensor};
use rhn_kernels::cpu::InstructionSet;
use rhn_kernels::precision::Precision;
use std::path::Path;

/// The number of this definition in a file. A change of the kernels that changes a bit of a logit needs another; the file in
/// `tests/compressed` notices.
pub(super) const NUMBERS: u16 = 1;

/// Runs `work` with kernels whose results do not depend on the processor.
pub(super) fn with_fixed_numbers<R>(work: impl FnOnce() -> R) -> R {
    InstructionSet::current().fused().force(work)
}

/// Opens a checkpoint whose model has kernels for every part; errors as [`Loaded::open`].
pub(super) fn load(argument: &Path) -> Result<Loaded> {
    let loaded = Loaded::open(argument, Precision::F32, &Device::Cpu)?;
    let spec = &loaded.model.config().spec;
    let kind = spec.output.kind;
    let is_one_softmax = matches!(kind, OutputKind::Softmax | OutputKind::CharCnn);
    let is_stabilised = matches!(&spec.core, CoreConfig::Hlstm(core) if core.stabiliser);
    if is_one_softmax && !is_stabilised && loaded.model.steps()?.is_some() {
        return Ok(loaded);
    }
    let what = match kind {
        OutputKind::Mixture => {
            "has a mixture of softmaxes for its output, whose tanh and exp are those of the operating system: another \
             machine might not decode what it compresses. A model with one softmax can"
        }
        OutputKind::Adaptive => {
            "has an adaptive softmax for its output, whose exp and ln are those of the operating system: another machine \
             might not decode what it compresses. A model with one softmax can"
        }
        OutputKind::Softmax | OutputKind::CharCnn => {
            "has a core of plain tensor operations, whose tanh or exp is that of the operating system: another machine \
             might not decode what it compresses. Cores with kernels can: rhn and lstm without a mogrifier and a \
             projection, gru, and hlstm without full peepholes, coupled gates, projection and stabiliser"
        }
    };
    Err(Error::checkpoint(loaded.directory(), what))
}

/// A model that reads rows side by side, one token of each at a time.
pub(super) struct Stepper {
    model: FrozenModel,
    state: State,
}

impl Stepper {
    /// Before the first token of `rows` rows.
    pub(super) fn new(model: &FrozenModel, rows: usize) -> Result<Self> {
        Ok(Self { state: model.zero_state(rows)?, model: model.clone() })
    }

    /// Reads a token of each row: the logits of the next ones, `(rows, vocabulary)` row by row.
    pub(super) fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let inputs = Tensor::from_slice(tokens, (1, tokens.len()), &Device::Cpu)?;
        let (logits, state) = self.model.logits(&inputs, &self.state, &Noise::none())?;
        self.state = state;
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}
