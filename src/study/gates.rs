//! What the gates of a stage do: their biases, their mean over many rows, over those of a class, and on one row
//! (Srivastava, Greff and Schmidhuber, 2015, section 4).

use crate::config::{CoreConfig, ModelConfig};
use crate::data::images::Images;
use crate::error::{Error, Result};
use crate::eval::EvaluationProgress;
use crate::eval::images::TOGETHER;
use crate::model::core::{Mixing, RhnSharedGates, SharedGates};
use crate::model::{LanguageModel, StageId, StageTrace};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// Layers × units.
pub(crate) type Matrix = Vec<Vec<f64>>;

/// Means of the gates over rows: of the transform gates, unless a name says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct GateMeans {
    all: Sums,
    /// Of the carry gates, where they have weights of their own.
    carry: Sums,
    /// Of the classes that are asked for.
    classes: BTreeMap<u32, Sums>,
}

#[derive(Clone, Debug, Default)]
struct Sums {
    rows: u64,
    gates: Matrix,
}

impl Sums {
    fn add(&mut self, layer: usize, row: &[f64]) {
        if self.gates.len() <= layer {
            self.gates.resize(layer + 1, vec![0.0; row.len()]);
        }
        self.gates[layer].iter_mut().zip(row).for_each(|(sum, gate)| *sum += gate);
    }

    fn mean(&self) -> Matrix {
        let mean = |layer: &Vec<f64>| layer.iter().map(|sum| sum / self.rows as f64).collect();
        self.gates.iter().map(mean).collect()
    }
}

impl GateMeans {
    /// Before any row; means are kept of all rows, and of those of each of `classes`.
    pub(crate) fn of_classes(classes: impl IntoIterator<Item = u32>) -> Self {
        let classes = classes.into_iter().map(|class| (class, Sums::default()));
        Self { classes: classes.collect(), ..Self::default() }
    }

    /// Adds the rows of a trace; `classes` has one for each.
    pub(crate) fn add(&mut self, trace: &StageTrace, classes: &[u32]) -> Result<()> {
        for (layer, values) in trace.layers.iter().enumerate() {
            let Some(gate) = &values.gate else { return Ok(()) };
            if let Some(carry) = &values.carry {
                rows(carry)?.iter().for_each(|row| self.carry.add(layer, row));
            }
            for (row, class) in rows(gate)?.iter().zip(classes) {
                self.all.add(layer, row);
                if let Some(sums) = self.classes.get_mut(class) {
                    sums.add(layer, row);
                }
            }
        }
        self.all.rows += classes.len() as u64;
        self.carry.rows += classes.len() as u64;
        for class in classes {
            if let Some(sums) = self.classes.get_mut(class) {
                sums.rows += 1;
            }
        }
        Ok(())
    }

    /// Over all rows; empty where the layers have no transform gates.
    pub(crate) fn mean(&self) -> Matrix {
        self.all.mean()
    }

    /// Of the carry gates, over all rows; empty where the layers have none with weights of their own.
    pub(crate) fn mean_carry(&self) -> Matrix {
        self.carry.mean()
    }

    /// Over the rows of a class, less the mean over all; `None` if no row had it.
    pub(crate) fn routing(&self, class: u32) -> Option<Matrix> {
        let own = self.classes.get(&class).filter(|sums| sums.rows > 0)?.mean();
        let less = |(own, all): (&Vec<f64>, &Vec<f64>)| own.iter().zip(all).map(|(a, b)| a - b).collect();
        Some(own.iter().zip(&self.mean()).map(less).collect())
    }
}

/// The transform gates' biases of a stage, constants included; `None` where its layers have no transform gate.
///
/// # Errors
/// If a tensor is missing or of another shape.
pub(crate) fn biases(
    config: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    stage: StageId,
) -> Result<Option<Matrix>> {
    let get = |name: String| tensors.get(&name).ok_or_else(|| Error::tensor(&name, "is missing"));
    Ok(match (stage, &config.spec.core, config.spec.embedding.highways()) {
        (StageId::TimeStep { layer, .. }, CoreConfig::Rhn(core), _) => {
            let size = core.hidden_size;
            if core.shared_gates != RhnSharedGates::None {
                let shared = get(format!("core.{layer}.shared.bias"))?.narrow(0, 0, size)?;
                return Ok(Some(vec![shared.to_dtype(DType::F64)?.to_vec1()?; core.recurrence_depth]));
            }
            Some(rows(&get(format!("core.{layer}.bias"))?.narrow(1, size, size)?)?)
        }
        (StageId::FeedForward { layers }, CoreConfig::FeedForward(core), _) => match core.mixing {
            Mixing::Plain => None,
            _ if core.shared_gates == SharedGates::None => {
                let size = core.hidden_size;
                Some(rows(&get("core.bias".into())?.narrow(1, size, size)?)?)
            }
            _ => {
                let shared = get("core.shared.bias".into())?.narrow(0, 0, core.hidden_size)?;
                Some(vec![shared.to_dtype(DType::F64)?.to_vec1()?; layers])
            }
        },
        (StageId::Embedding { layers }, _, Some(highways)) => {
            if !highways.variant.has_transform_gate() {
                return Ok(None);
            }
            let size = highways.size;
            let layer = |index: usize| -> Result<Vec<f64>> {
                let bias = get(format!("embedding.highway.{index}.bias"))?.narrow(0, size, size)?;
                let bias = (bias.to_dtype(DType::F64)? + highways.transform_bias)?;
                Ok(bias.to_vec1()?)
            };
            Some((0..layers).map(layer).collect::<Result<_>>()?)
        }
        _ => None,
    })
}

/// The means of the layers' values.
pub(crate) fn layer_means(matrix: &Matrix) -> Vec<f64> {
    matrix.iter().map(|layer| layer.iter().sum::<f64>() / layer.len().max(1) as f64).collect()
}

/// The same matrix with absolute values.
pub(crate) fn absolute(matrix: &Matrix) -> Matrix {
    matrix.iter().map(|layer| layer.iter().map(|value| value.abs()).collect()).collect()
}

/// `(rows, units)` as numbers.
pub(crate) fn rows(tensor: &Tensor) -> Result<Matrix> {
    Ok(tensor.to_dtype(DType::F64)?.to_vec2()?)
}

/// Calls `take` with what the layers of an image net do, some images at a time, in order.
///
/// # Errors
/// If `take` fails, or `progress` ends it.
pub(crate) fn for_each_trace(
    model: &LanguageModel,
    images: &Images,
    progress: EvaluationProgress<'_>,
    mut take: impl FnMut(&StageTrace) -> Result<()>,
) -> Result<()> {
    let state = model.zero_state(TOGETHER)?;
    let all: Vec<u32> = (0..images.len() as u32).collect();
    for numbers in all.chunks(TOGETHER) {
        let (pixels, _) = images.batch(numbers, model.precision().dtype(), model.device())?;
        if let Some((traces, _)) = model.trace_steps(&pixels, &state)? {
            traces.iter().try_for_each(&mut take)?;
        }
        progress(u64::from(numbers[numbers.len() - 1]) + 1, images.len() as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{GateMeans, layer_means};
    use crate::model::{LayerTrace, StageTrace};
    use candle_core::{Device, Tensor};

    #[test]
    fn routing_is_a_classes_mean_less_that_of_all() {
        let tensor = |values: &[[f64; 2]; 4]| Tensor::new(values, &Device::Cpu).unwrap();
        let gate = tensor(&[[0.0, 1.0], [1.0, 1.0], [0.5, 0.0], [0.5, 0.0]]);
        let carry = tensor(&[[1.0, 0.0], [0.0, 0.0], [1.0, 0.5], [1.0, 0.5]]);
        let layer =
            LayerTrace { state: gate.clone(), candidate: None, gate: Some(gate.clone()), carry: Some(carry) };
        let trace = StageTrace { entering: gate, layers: vec![layer] };
        let mut means = GateMeans::of_classes([1, 3, 7]);
        means.add(&trace, &[3, 3, 3, 7]).unwrap();
        assert_eq!(means.mean(), [[0.5, 0.5]]);
        assert_eq!(means.mean_carry(), [[0.75, 0.25]]);
        assert_eq!(means.routing(3).unwrap(), [[0.0, 2.0 / 3.0 - 0.5]]);
        assert_eq!(means.routing(7).unwrap(), [[0.0, -0.5]]);
        assert!(means.routing(1).is_none());
        assert_eq!(layer_means(&means.mean()), [0.5]);
    }
}
