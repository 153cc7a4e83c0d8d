//! The sums of a stage, row by row: how far each of its states is from its last one, and what its gates do.

use super::moments::{Moments, Pairs, correlation, mean};
use super::result::{LayerEstimate, Mixing, StageEstimate};
use crate::error::{Error, Result};
use crate::model::{StageId, StageTrace};
use candle_core::{DType, Tensor};

/// What is summed over the rows of a stage; state 0 is what enters it.
pub(super) struct StageSums {
    units: usize,
    rows: u64,
    weight: f64,
    /// Of every state: its difference to the last one.
    differences: Vec<Moments>,
    /// Of every state: the norm of that difference, of the state, and of the step that led to it.
    norms: Vec<[f64; 3]>,
    layers: Vec<LayerSums>,
}

/// What is summed over the rows of a layer's gate and candidate, where it has them.
struct LayerSums {
    gate: Option<GateSums>,
    /// The errors of its input and of H.
    errors: Option<Pairs>,
}

struct GateSums {
    moments: Moments,
    /// Weighted count of values above one half.
    open: f64,
}

impl StageSums {
    /// For a stage like that of `trace`.
    pub(super) fn new(trace: &StageTrace) -> Result<Self> {
        let (_, units) = trace.entering.dims2()?;
        let states = trace.layers.len() + 1;
        let layers = trace.layers.iter().map(|layer| LayerSums {
            gate: layer.gate.is_some().then(|| GateSums { moments: Moments::new(units), open: 0.0 }),
            errors: layer.candidate.is_some().then(|| Pairs::new(units)),
        });
        Ok(Self {
            units,
            rows: 0,
            weight: 0.0,
            differences: vec![Moments::new(units); states],
            norms: vec![[0.0; 3]; states],
            layers: layers.collect(),
        })
    }

    /// Adds rows, each of which counts as often as `weight` says.
    pub(super) fn add(&mut self, trace: &StageTrace, weight: impl Fn(usize) -> f64) -> Result<()> {
        let states: Vec<Vec<f64>> = std::iter::once(&trace.entering)
            .chain(trace.layers.iter().map(|layer| &layer.state))
            .map(finite)
            .collect::<Result<_>>()?;
        let last = &states[states.len() - 1];
        let rows = trace.entering.dim(0)?;
        let units = self.units;
        for (k, state) in states.iter().enumerate() {
            for row in 0..rows {
                let weight = weight(row);
                let of_row = row * units..(row + 1) * units;
                let state_row = &state[of_row.clone()];
                let difference = || state_row.iter().zip(&last[of_row.clone()]).map(|(a, end)| a - end);
                self.differences[k].add(difference(), weight);
                let step = match k {
                    0 => 0.0,
                    _ => norm(state_row.iter().zip(&states[k - 1][of_row.clone()]).map(|(a, b)| a - b)),
                };
                let norms = [norm(difference()), norm(state_row.iter().copied()), step];
                self.norms[k].iter_mut().zip(norms).for_each(|(sum, norm)| *sum += weight * norm);
            }
        }
        for (k, (layer, sums)) in trace.layers.iter().zip(&mut self.layers).enumerate() {
            if let (Some(gate), Some(sums)) = (&layer.gate, &mut sums.gate) {
                sums.add(&finite(gate)?, units, &weight);
            }
            if let (Some(candidate), Some(errors)) = (&layer.candidate, &mut sums.errors) {
                let candidate = finite(candidate)?;
                for row in 0..rows {
                    let of_row = row * units..(row + 1) * units;
                    let inputs = states[k][of_row.clone()].iter().zip(&candidate[of_row.clone()]);
                    let row_errors = inputs.zip(&last[of_row]).map(|((a, h), end)| [a - end, h - end]);
                    errors.add(row_errors, weight(row));
                }
            }
        }
        self.rows += rows as u64;
        self.weight += (0..rows).map(weight).sum::<f64>();
        Ok(())
    }

    /// Divides the sums, once.
    pub(super) fn divide(&self, stage: StageId, weights: &str, over: &str) -> StageEstimate {
        let layers: Vec<_> = (0..self.differences.len()).map(|k| self.layer(k)).collect();
        let notes = self.notes(&layers);
        StageEstimate {
            stage: stage.name(),
            weights: weights.into(),
            over: over.into(),
            rows: self.rows,
            weight: self.weight,
            units: self.units,
            layers,
            notes,
        }
    }

    /// Why there are dashes, and what is left out.
    fn notes(&self, layers: &[LayerEstimate]) -> Vec<String> {
        let mut notes = vec![
            "0 is what enters the stage: no step leads to it, no gate belongs to it".to_string(),
            "the last state stands for what is estimated: its d is 0 by definition, and it has no ideal gate"
                .into(),
        ];
        if self.layers.iter().any(|layer| layer.gate.is_none()) {
            notes.push("these layers have no transform gate".into());
        }
        if self.layers.iter().any(|layer| layer.errors.is_none()) {
            notes.push("in these layers no gate weighs H against the input, so there is no ideal one".into());
        }
        let mixing = || layers.iter().filter_map(|layer| layer.mixing.as_ref());
        if mixing().any(|mixing| mixing.correlation.is_none()) {
            notes.push("no correlation where the gate or its ideal is the same in all units".into());
        }
        match mixing().map(|mixing| mixing.left_out).sum::<usize>() {
            0 => {}
            count => notes
                .push(format!("{count} units are left out of the ideal gates: H and the input err alike")),
        }
        notes
    }

    fn layer(&self, k: usize) -> LayerEstimate {
        let end = self.differences.len() - 1;
        let over = |numerator: f64, denominator: f64| {
            let ratio = numerator / denominator;
            ratio.is_finite().then_some(ratio)
        };
        let means = self.differences[k].means();
        let sums = k.checked_sub(1).map(|index| &self.layers[index]);
        let gate = sums.and_then(|sums| sums.gate.as_ref());
        let errors = sums.filter(|_| k < end).and_then(|sums| sums.errors.as_ref());
        LayerEstimate {
            k,
            mean: mean(means.iter().copied()),
            sd: mean(self.differences[k].deviations()),
            absmean: mean(means.iter().map(|mean| mean.abs())),
            rel: over(self.norms[k][0], self.norms[end][1]),
            step: k.checked_sub(1).and_then(|before| over(self.norms[k][2], self.norms[before][1])),
            gate_mean: gate.map(|gate| mean(gate.moments.means().iter().copied())),
            gate_open: gate.map(|gate| gate.open / (self.weight * self.units as f64)),
            gate_sd: gate.map(|gate| mean(gate.moments.deviations())),
            mixing: errors.map(|errors| mixing(errors, gate)),
        }
    }
}

impl GateSums {
    fn add(&mut self, values: &[f64], units: usize, weight: impl Fn(usize) -> f64) {
        for (row, values) in values.chunks_exact(units.max(1)).enumerate() {
            self.moments.add(values.iter().copied(), weight(row));
            self.open += weight(row) * values.iter().filter(|&&gate| gate > 0.5).count() as f64;
        }
    }
}

/// The best weights of H beside the gate's own.
fn mixing(errors: &Pairs, gate: Option<&GateSums>) -> Mixing {
    let best: Vec<Option<f64>> = errors.best_weights().collect();
    let known: Vec<f64> = best.iter().copied().flatten().collect();
    let beside = gate.map(|gate| {
        let pairs = best.iter().zip(gate.moments.means());
        pairs.filter_map(|(best, &gate)| Some([(*best)?, gate])).collect::<Vec<_>>()
    });
    Mixing {
        left_out: best.len() - known.len(),
        ideal: (!known.is_empty()).then(|| mean(known.iter().copied())),
        correlation: beside.and_then(|pairs| correlation(&pairs)),
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// The values in f64. One that is not finite is an error, never part of a sum.
fn finite(tensor: &Tensor) -> Result<Vec<f64>> {
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(wrong) => Err(Error::NotFinite {
            step: 0,
            what: format!("a layer's state is {wrong}; the model's weights are unusable"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::StageSums;
    use crate::model::{LayerTrace, StageId, StageTrace};
    use candle_core::{Device, Tensor};

    fn rows(values: &[[f64; 2]; 2]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    /// Two rows of two units, two layers: 0 → 2 → 4 and 0 → 6 → 8 in the first unit, nothing in the second.
    fn trace() -> StageTrace {
        let layer = |state: &[[f64; 2]; 2], gate| LayerTrace {
            state: rows(state),
            candidate: Some(rows(&[[4.0, 1.0], [6.0, -1.0]])),
            gate: Some(rows(&[[gate, 0.0], [gate, 0.0]])),
            carry: None,
        };
        let first = layer(&[[2.0, 0.0], [6.0, 0.0]], 0.75);
        let last = layer(&[[4.0, 0.0], [8.0, 0.0]], 0.25);
        StageTrace { entering: rows(&[[0.0, 0.0], [0.0, 0.0]]), layers: vec![first, last] }
    }

    #[test]
    fn each_figure_is_what_its_definition_gives() {
        let mut sums = StageSums::new(&trace()).unwrap();
        sums.add(&trace(), |_| 1.0).unwrap();
        let found = sums.divide(StageId::Embedding { layers: 2 }, "trained", "tokens");
        let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        let [zero, one, two] = &found.layers[..] else { panic!("{found:?}") };
        close(zero.mean, -3.0); // of -6 and 0 over the units
        close(zero.sd, 1.0); // of 2 (-4, -8) and 0
        close(one.mean, -1.0);
        close(one.absmean, 1.0);
        close(one.sd, 0.0); // -2 in both rows
        close(one.rel.unwrap(), 2.0 / 6.0);
        assert_eq!((two.mean, two.sd, zero.step, one.step), (0.0, 0.0, None, None)); // from 0: no step
        close(two.step.unwrap(), 2.0 / 4.0);
        close(one.gate_mean.unwrap(), 0.375);
        close(one.gate_open.unwrap(), 0.5);
        let mixing = one.mixing.as_ref().unwrap();
        // Errors of the first unit's input: -4, -8; of H: 0, -2. Variances 4 and 1, covariance 2: (4 - 2) / (4 + 1 - 4).
        // Those of the second unit: 0, 0 and 1, -1: all weight stays with the input.
        close(mixing.ideal.unwrap(), 0.5);
        close(mixing.correlation.unwrap(), 1.0);
        assert!(two.mixing.is_none() && zero.mixing.is_none() && zero.gate_mean.is_none());
    }

    #[test]
    fn a_row_that_counts_twice_is_two_rows() {
        let mut twice = StageSums::new(&trace()).unwrap();
        twice.add(&trace(), |row| if row == 0 { 2.0 } else { 1.0 }).unwrap();
        let mut three = StageSums::new(&trace()).unwrap();
        three.add(&trace(), |row| if row == 0 { 2.0 } else { 0.0 }).unwrap();
        three.add(&trace(), |row| if row == 0 { 0.0 } else { 1.0 }).unwrap();
        let stage = StageId::Embedding { layers: 2 };
        let [one, other] = [twice, three].map(|sums| sums.divide(stage, "trained", "tokens").layers);
        assert_eq!(one.len(), other.len());
        assert!((one[0].sd - other[0].sd).abs() < 1e-12 && (one[0].mean - other[0].mean).abs() < 1e-12);
    }

    #[test]
    fn a_state_that_is_no_number_is_an_error() {
        let mut trace = trace();
        trace.layers[0].state = rows(&[[f64::NAN, 0.0], [0.0, 0.0]]);
        assert!(StageSums::new(&trace).unwrap().add(&trace, |_| 1.0).is_err());
    }
}
