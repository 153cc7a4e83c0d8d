//! One time step of a layer of each kind, as nodes of a graph. The equations are those of the kind's file in `model/core`.

use super::graph::{Graph, Value, Weights};
use crate::error::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The kinds of layers that have equations here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rhn,
    Lstm,
    Gru,
    HighwayLstm,
    Kurata,
}

impl Kind {
    /// The kind that `[model.core]` asks for.
    pub(super) fn of(core: &serde_json::Value) -> Result<Self> {
        match (core["kind"].as_str(), core["variant"].as_str()) {
            (Some("rhn"), _) => Ok(Self::Rhn),
            (Some("lstm"), _) => Ok(Self::Lstm),
            (Some("gru"), _) => Ok(Self::Gru),
            (Some("hlstm"), Some("kurata")) => Ok(Self::Kurata),
            (Some("hlstm"), _) => Ok(Self::HighwayLstm),
            (kind, _) => Err(Error::config(format!("core.kind = {kind:?} has no ONNX graph"))),
        }
    }
}

/// A layer whose weights are in a graph already.
pub(super) struct Layer {
    kind: Kind,
    /// Names of the weights, a matrix or a vector each, by what they are called in the checkpoint.
    names: BTreeMap<String, Value>,
    /// Sublayers a time step, of an RHN.
    depth: usize,
    /// Columns of a gate.
    units: usize,
    /// Columns of the product with the input, in gates.
    gates: usize,
    full_peephole: bool,
    pub(super) input_size: usize,
    /// Units of each part of the state.
    pub(super) state_sizes: Vec<usize>,
}

impl Layer {
    /// Puts the weights of layer `k` into `weights`.
    pub(super) fn new(
        kind: Kind,
        k: usize,
        tensors: &BTreeMap<String, Tensor>,
        weights: &mut Weights,
    ) -> Result<Self> {
        let tensor = |name: &str| {
            tensors.get(name).ok_or_else(|| Error::tensor(format!("core.{k}.{name}"), "is missing"))
        };
        let recurrent = tensor("recurrent.weight")?;
        let (input_size, columns) = tensor("input.weight")?.dims2()?;
        let (depth, outputs) = match kind {
            Kind::Rhn => (recurrent.dim(0)?, recurrent.dim(1)?),
            _ => (1, recurrent.dim(0)?),
        };
        let units = tensors.get("projection.weight").map_or(Ok(outputs), |weight| weight.dim(0))?;
        let state_sizes = match kind {
            Kind::Rhn | Kind::Gru => vec![outputs],
            Kind::Lstm | Kind::HighwayLstm | Kind::Kurata => vec![outputs, units],
        };
        let mut names = BTreeMap::new();
        for (name, tensor) in tensors {
            for (name, part) in parts(kind, name, tensor)? {
                names.insert(name.clone(), weights.add(format!("core.{k}.{name}"), part));
            }
        }
        if matches!(kind, Kind::Lstm | Kind::Kurata) {
            let sum = (tensor("input.bias")? + tensor("recurrent.bias")?)?;
            names.insert("bias".into(), weights.add(format!("core.{k}.bias"), sum));
        }
        let full_peephole = tensors.get("peephole").is_some_and(|peephole| peephole.rank() == 3);
        Ok(Self { kind, names, depth, units, gates: columns / units, full_peephole, input_size, state_sizes })
    }

    /// Adds one time step: from the input `(batch, input)`, the state, and the lower layer's new cell to the next state. The
    /// first part of it is the output.
    pub(super) fn step(
        &self,
        to: &mut Step<'_>,
        x: &str,
        state: &[Value],
        below: Option<&str>,
    ) -> Vec<Value> {
        let (x, seen) = &self.gated(to, x, state);
        match self.kind {
            Kind::Rhn => vec![self.rhn(to, x, [&seen[0], &state[0]])],
            Kind::Lstm => self.lstm(to, x, seen).to_vec(),
            Kind::Kurata => self.kurata(to, x, state).to_vec(),
            Kind::Gru => vec![self.gru(to, x, &state[0])],
            Kind::HighwayLstm => self.highway_lstm(to, x, state, below).to_vec(),
        }
    }

    fn name(&self, name: &str) -> &str {
        self.names.get(name).map_or("", String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn product(&self, to: &mut Step<'_>, x: &str, name: &str) -> Value {
        to.graph.op("MatMul", &[x, self.name(name)])
    }

    fn affine(&self, to: &mut Step<'_>, x: &str, weight: &str, bias: &str) -> Value {
        let product = self.product(to, x, weight);
        to.graph.op("Add", &[&product, self.name(bias)])
    }

    /// Input and state after they have gated each other in turn, where the layer is a Mogrifier: `2 sigmoid(from W + b) ⊙ to`.
    fn gated(&self, to: &mut Step<'_>, x: &str, state: &[Value]) -> (Value, Vec<Value>) {
        let mut x = x.to_string();
        let mut state = state.to_vec();
        for index in 0.. {
            let bias = format!("mogrifier.{index}.bias");
            if !self.has(&bias) {
                break;
            }
            let gates_input = index % 2 == 0;
            let (from, gated) = if gates_input { (&state[0], &x) } else { (&x, &state[0]) };
            let mut z = from.clone();
            for weight in ["weight", "down.weight", "up.weight"] {
                let weight = format!("mogrifier.{index}.{weight}");
                if self.has(&weight) {
                    z = self.product(to, &z, &weight);
                }
            }
            let z = to.graph.op("Add", &[&z, self.name(&bias)]);
            let gate = to.graph.op("Sigmoid", &[&z]);
            let half = to.graph.op("Mul", &[&gate, gated]);
            let whole = to.graph.op("Add", &[&half, &half]);
            *(if gates_input { &mut x } else { &mut state[0] }) = whole;
        }
        (x, state)
    }

    /// The products of the first sublayer see the state as `seen`, the carry as it is.
    fn rhn(&self, to: &mut Step<'_>, x: &str, [seen, s]: [&str; 2]) -> Value {
        let input = self.product(to, x, "input.weight");
        let mut input = Some(to.split(&input, self.gates, self.units));
        let mut s = s.to_string();
        for l in 0..self.depth {
            let seen = if l == 0 { seen } else { &s };
            let own = self.affine(to, seen, &format!("recurrent.weight.{l}"), &format!("bias.{l}"));
            let mut z = if self.has("shared.weight") {
                let gates = self.affine(to, seen, "shared.weight", "shared.bias");
                [vec![own], to.split(&gates, self.gates - 1, self.units)].concat()
            } else {
                to.split(&own, self.gates, self.units)
            };
            if let Some(input) = input.take() {
                z = z.iter().zip(&input).map(|(z, x)| to.graph.op("Add", &[z, x])).collect();
            }
            let h = to.graph.op("Tanh", &[&z[0]]);
            let t = to.graph.op("Sigmoid", &[&z[1]]);
            s = match z.get(2) {
                Some(carry) => {
                    let c = to.graph.op("Sigmoid", &[carry]);
                    to.sum_of_products([(&h, &t), (&s, &c)])
                }
                None => {
                    let difference = to.graph.op("Sub", &[&h, &s]);
                    let change = to.graph.op("Mul", &[&t, &difference]);
                    to.graph.op("Add", &[&s, &change])
                }
            };
        }
        s
    }

    fn lstm(&self, to: &mut Step<'_>, x: &str, state: &[Value]) -> [Value; 2] {
        let input = self.affine(to, x, "input.weight", "bias");
        let recurrent = self.product(to, &state[0], "recurrent.weight");
        let z = to.graph.op("Add", &[&input, &recurrent]);
        let z = to.split(&z, 4, self.units);
        let [i, o, f] = [0, 1, 2].map(|gate| to.graph.op("Sigmoid", &[&z[gate]]));
        let g = to.graph.op("Tanh", &[&z[3]]);
        let c = to.sum_of_products([(&f, &state[1]), (&i, &g)]);
        let squashed = to.graph.op("Tanh", &[&c]);
        [to.graph.op("Mul", &[&o, &squashed]), c]
    }

    fn kurata(&self, to: &mut Step<'_>, x: &str, state: &[Value]) -> [Value; 2] {
        let [h, c] = self.lstm(to, x, state);
        let z = self.affine(to, &h, "highway.weight", "highway.bias");
        let z = to.split(&z, 2, self.units);
        let candidate = to.graph.op("Tanh", &[&z[0]]);
        let t = to.graph.op("Sigmoid", &[&z[1]]);
        let difference = to.graph.op("Sub", &[&candidate, &h]);
        let change = to.graph.op("Mul", &[&t, &difference]);
        [to.graph.op("Add", &[&h, &change]), c]
    }

    fn gru(&self, to: &mut Step<'_>, x: &str, h: &str) -> Value {
        let input = self.affine(to, x, "input.weight", "input.bias");
        let input = to.split(&input, 3, self.units);
        let recurrent = self.affine(to, h, "recurrent.weight", "recurrent.bias");
        let recurrent = to.split(&recurrent, 3, self.units);
        let [r, z] = [0, 1].map(|gate| {
            let sum = to.graph.op("Add", &[&input[gate], &recurrent[gate]]);
            to.graph.op("Sigmoid", &[&sum])
        });
        let scaled = to.graph.op("Mul", &[&r, &recurrent[2]]);
        let sum = to.graph.op("Add", &[&input[2], &scaled]);
        let n = to.graph.op("Tanh", &[&sum]);
        let difference = to.graph.op("Sub", &[h, &n]);
        let kept = to.graph.op("Mul", &[&z, &difference]);
        to.graph.op("Add", &[&n, &kept]) // n + z (h - n)
    }

    fn highway_lstm(&self, to: &mut Step<'_>, x: &str, state: &[Value], below: Option<&str>) -> [Value; 2] {
        let c = &state[1];
        let coupled = self.gates == 3;
        let input = self.affine(to, x, "input.weight", "bias");
        let recurrent = self.product(to, &state[0], "recurrent.weight");
        let z = to.graph.op("Add", &[&input, &recurrent]);
        let z = to.split(&z, self.gates, self.units);
        let i = self.gate(to, &z[0], 0, c);
        let f = if coupled { to.one_minus(&i) } else { self.gate(to, &z[2], 1, c) };
        let g = to.graph.op("Tanh", &[&z[self.gates - 1]]);
        let mut cell = to.sum_of_products([(&f, c), (&i, &g)]);
        if self.has("depth.weight") {
            let entering = self.let_through(to, x, c, below);
            cell = to.graph.op("Add", &[&cell, &entering]);
        }
        let o = self.gate(to, &z[1], if coupled { 1 } else { 2 }, &cell);
        let squashed = to.graph.op("Tanh", &[&cell]);
        let h = to.graph.op("Mul", &[&o, &squashed]);
        let h = if self.has("projection.weight") { self.product(to, &h, "projection.weight") } else { h };
        [h, cell]
    }

    /// A gate with its look at the cell.
    fn gate(&self, to: &mut Step<'_>, z: &str, peephole: usize, cell: &str) -> Value {
        let name = format!("peephole.{peephole}");
        if !self.has(&name) {
            return to.graph.op("Sigmoid", &[z]);
        }
        let operator = if self.full_peephole { "MatMul" } else { "Mul" };
        let seen = to.graph.op(operator, &[cell, self.name(&name)]);
        let sum = to.graph.op("Add", &[z, &seen]);
        to.graph.op("Sigmoid", &[&sum])
    }

    /// What the depth gate lets through of the lower layer's cell, or of a product of the input.
    fn let_through(&self, to: &mut Step<'_>, x: &str, cell: &str, below: Option<&str>) -> Value {
        let mut z = self.affine(to, x, "depth.weight", "depth.bias");
        let entering = match below {
            Some(below) if !self.has("depth.carry.weight") => below.to_string(),
            _ => self.product(to, x, "depth.carry.weight"),
        };
        for (name, seen) in [("depth.peephole.0", cell), ("depth.peephole.1", &entering)] {
            if self.has(name) {
                let seen = to.graph.op("Mul", &[seen, self.name(name)]);
                z = to.graph.op("Add", &[&z, &seen]);
            }
        }
        let d = to.graph.op("Sigmoid", &[&z]);
        to.graph.op("Mul", &[&d, &entering])
    }
}

/// The matrices and vectors of one of a layer's tensors, with their names: those along its first dimension, a number each,
/// where that is sublayers or gates.
fn parts(kind: Kind, name: &str, tensor: &Tensor) -> Result<Vec<(String, Tensor)>> {
    let stacked =
        name.ends_with("peephole") || (kind == Kind::Rhn && ["recurrent.weight", "bias"].contains(&name));
    let summed =
        matches!(kind, Kind::Lstm | Kind::Kurata) && ["input.bias", "recurrent.bias"].contains(&name);
    if summed {
        return Ok(vec![]); // the sum is kept in their place
    }
    if !stacked {
        return Ok(vec![(name.to_string(), tensor.clone())]);
    }
    (0..tensor.dim(0)?).map(|index| Ok((format!("{name}.{index}"), tensor.get(index)?))).collect()
}

/// The graph that a time step is added to, and its weights.
pub(super) struct Step<'a> {
    pub(super) graph: &'a mut Graph,
    pub(super) weights: &'a mut Weights,
}

impl Step<'_> {
    pub(super) fn split(&mut self, value: &str, parts: usize, size: usize) -> Vec<Value> {
        self.graph.split(self.weights, value, parts, size)
    }

    fn sum_of_products(&mut self, pairs: [(&str, &str); 2]) -> Value {
        let [one, other] = pairs.map(|(a, b)| self.graph.op("Mul", &[a, b]));
        self.graph.op("Add", &[&one, &other])
    }

    fn one_minus(&mut self, value: &str) -> Value {
        let one = Tensor::new(1f32, &candle_core::Device::Cpu);
        let one = self.weights.add("one", one.expect("a number is a tensor"));
        self.graph.op("Sub", &[&one, value])
    }
}
