//! An ONNX graph while it is put together: nodes, weights, inputs and outputs.
//!
//! The numbers of fields and types are those of `onnx.proto`.

use super::protobuf::Message;
use crate::error::Result;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The operators' version, and the file's that goes with it: of the end of 2021, so that old runtimes load it.
const OPSET: u64 = 17;
const IR_VERSION: u64 = 8;

/// Weights begin at multiples of this in a file of their own.
const ALIGNMENT: usize = 64;

/// The name of a value.
pub(super) type Value = String;

/// What a value's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Float = 1,
    Int64 = 7,
}

/// The size of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    Size(usize),
    /// Any size, the same wherever the name is.
    Named(&'static str),
}

/// Weights by name; a value that is used twice is kept once.
#[derive(Default)]
pub(super) struct Weights(BTreeMap<String, Weight>);

enum Weight {
    Floats(Tensor),
    Sizes(Vec<usize>),
}

impl Weights {
    /// Keeps `tensor` under `name`.
    pub(super) fn add(&mut self, name: impl Into<String>, tensor: Tensor) -> Value {
        let name = name.into();
        self.0.insert(name.clone(), Weight::Floats(tensor));
        name
    }

    /// Keeps a vector of whole numbers.
    pub(super) fn sizes(&mut self, sizes: &[usize]) -> Value {
        let name = format!("sizes_{}", sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("_"));
        self.0.insert(name.clone(), Weight::Sizes(sizes.to_vec()));
        name
    }

    /// Bytes of all weights.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |weight: &Weight| match weight {
            Weight::Floats(tensor) => 4 * tensor.elem_count(),
            Weight::Sizes(sizes) => 8 * sizes.len(),
        };
        self.0.values().map(bytes).sum()
    }

    /// The weights as a graph has them, each with its bytes.
    pub(super) fn inside(&self) -> Result<Vec<Message>> {
        self.0
            .iter()
            .map(|(name, weight)| Ok(weight.header(name).bytes(9, &weight.little_endian()?)))
            .collect()
    }

    /// The weights as a graph has them whose bytes are in the file `name`, and these bytes. Vectors of sizes stay inside: a
    /// reader needs them to know shapes.
    pub(super) fn outside(&self, file: &str) -> Result<(Vec<Message>, Vec<u8>)> {
        let mut all = Vec::new();
        let mut headers = Vec::new();
        for (name, weight) in &self.0 {
            let bytes = weight.little_endian()?;
            if matches!(weight, Weight::Sizes(_)) {
                headers.push(weight.header(name).bytes(9, &bytes));
                continue;
            }
            all.resize(all.len().next_multiple_of(ALIGNMENT), 0);
            let place = [
                ("location", file.to_string()),
                ("offset", all.len().to_string()),
                ("length", bytes.len().to_string()),
            ];
            let place = place.map(|(key, value)| Message::default().text(1, key).text(2, &value));
            headers.push(weight.header(name).messages(13, &place).number(14, 1));
            all.extend(bytes);
        }
        Ok((headers, all))
    }
}

impl Weight {
    /// A `TensorProto` but for its bytes.
    fn header(&self, name: &str) -> Message {
        let (dims, kind) = match self {
            Self::Floats(tensor) => (tensor.dims().to_vec(), Type::Float),
            Self::Sizes(sizes) => (vec![sizes.len()], Type::Int64),
        };
        let dims = dims.into_iter().map(|size| size as u64);
        Message::default().numbers(1, dims).number(2, kind as u64).text(8, name)
    }

    fn little_endian(&self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Floats(tensor) => {
                tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect()
            }
            Self::Sizes(sizes) => sizes.iter().flat_map(|&size| (size as i64).to_le_bytes()).collect(),
        })
    }
}

/// A setting of a node.
pub(super) enum Attribute {
    Number(&'static str, i64),
    Numbers(&'static str, Vec<i64>),
    Graph(&'static str, Message),
}

impl Attribute {
    fn encode(&self) -> Message {
        let named = |name: &str, kind: u64| Message::default().text(1, name).number(20, kind);
        match self {
            Self::Number(name, value) => named(name, 2).number(3, *value as u64),
            Self::Numbers(name, values) => {
                named(name, 7).numbers(8, values.iter().map(|&value| value as u64))
            }
            Self::Graph(name, graph) => named(name, 5).message(6, graph),
        }
    }
}

/// Nodes in order, with their graph's inputs and outputs.
pub(super) struct Graph {
    name: &'static str,
    nodes: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
    made: usize,
}

impl Graph {
    /// An empty graph; values that it makes have its name in theirs.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, nodes: vec![], inputs: vec![], outputs: vec![], made: 0 }
    }

    /// An input.
    pub(super) fn input(&mut self, name: &str, kind: Type, dims: &[Dim]) -> Value {
        self.inputs.push(typed(name, kind, dims));
        name.to_string()
    }

    /// Gives `value` out as `name`.
    pub(super) fn output(&mut self, name: &str, value: &str, kind: Type, dims: &[Dim]) {
        self.node("Identity", &[value], &[name.to_string()], &[]);
        self.outputs.push(typed(name, kind, dims));
    }

    /// The one output of an operator.
    pub(super) fn op(&mut self, kind: &str, inputs: &[&str]) -> Value {
        self.op_with(kind, inputs, &[])
    }

    /// As [`Graph::op`], with settings.
    pub(super) fn op_with(&mut self, kind: &str, inputs: &[&str], attributes: &[Attribute]) -> Value {
        let output = self.fresh(kind);
        self.node(kind, inputs, std::slice::from_ref(&output), attributes);
        output
    }

    /// `value` cut along its last dimension into `parts` of `size`.
    pub(super) fn split(
        &mut self,
        weights: &mut Weights,
        value: &str,
        parts: usize,
        size: usize,
    ) -> Vec<Value> {
        let sizes = weights.sizes(&vec![size; parts]);
        let outputs: Vec<_> = (0..parts).map(|_| self.fresh("Split")).collect();
        self.node("Split", &[value, &sizes], &outputs, &[Attribute::Number("axis", -1)]);
        outputs
    }

    /// A node whose outputs have names already.
    pub(super) fn node(&mut self, kind: &str, inputs: &[&str], outputs: &[Value], attributes: &[Attribute]) {
        let node = inputs.iter().fold(Message::default(), |node, input| node.text(1, input));
        let node = outputs.iter().fold(node, |node, output| node.text(2, output));
        let name = format!("{}/{}", self.name, self.nodes.len());
        let attributes: Vec<_> = attributes.iter().map(Attribute::encode).collect();
        self.nodes.push(node.text(3, &name).text(4, kind).messages(5, &attributes));
    }

    /// A name that no other value has.
    pub(super) fn fresh(&mut self, kind: &str) -> Value {
        self.made += 1;
        format!("{}/{kind}_{}", self.name, self.made)
    }

    /// A `GraphProto` with `weights`.
    pub(super) fn encode(&self, weights: &[Message]) -> Message {
        let graph = Message::default().messages(1, &self.nodes).text(2, self.name).messages(5, weights);
        graph.messages(11, &self.inputs).messages(12, &self.outputs)
    }

    /// A file: a `ModelProto` with `weights`, and what is said of it.
    pub(super) fn file(&self, weights: &[Message], about: &[(&str, String)]) -> Vec<u8> {
        let opset = Message::default().text(1, "").number(2, OPSET);
        let about = about.iter().map(|(key, value)| Message::default().text(1, key).text(2, value));
        let about: Vec<_> = about.collect();
        let model =
            Message::default().number(1, IR_VERSION).text(2, "rhn").text(3, env!("CARGO_PKG_VERSION"));
        let model = model.message(7, &self.encode(weights)).message(8, &opset);
        model.messages(14, &about).into_bytes()
    }
}

/// A `ValueInfoProto`.
fn typed(name: &str, kind: Type, dims: &[Dim]) -> Message {
    let dim = |dim: &Dim| match dim {
        Dim::Size(size) => Message::default().number(1, *size as u64),
        Dim::Named(name) => Message::default().text(2, name),
    };
    let dims: Vec<_> = dims.iter().map(dim).collect();
    let shape = Message::default().messages(1, &dims);
    let tensor = Message::default().number(1, kind as u64).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}

#[cfg(test)]
mod tests {
    use super::{Dim, Type, Weights, typed};
    use candle_core::{Device, Tensor};

    #[test]
    fn a_value_has_its_name_type_and_shape() {
        let wanted = [
            &[0x0a, 1, b'x'][..],           // name
            &[0x12, 17, 0x0a, 15, 0x08, 1], // type: a tensor of floats
            &[0x12, 11, 0x0a, 2, 0x08, 3],  // shape: 3
            &[0x0a, 5, 0x12, 3, b'a', b'b', b'c'],
        ];
        let found = typed("x", Type::Float, &[Dim::Size(3), Dim::Named("abc")]).into_bytes();
        assert_eq!(found, wanted.concat());
    }

    #[test]
    fn weights_outside_are_found_by_place_and_length() {
        let mut weights = Weights::default();
        weights.add("b", Tensor::new(&[1f32, -2.0], &Device::Cpu).unwrap());
        weights.add("a", Tensor::new(&[0.5f32], &Device::Cpu).unwrap());
        weights.sizes(&[4, 4]);
        assert_eq!(weights.bytes(), 4 + 8 + 16);
        let (headers, bytes) = weights.outside("w.bin").unwrap();
        assert_eq!((headers.len(), bytes.len()), (3, 64 + 8));
        assert_eq!(bytes[..4], 0.5f32.to_le_bytes());
        assert_eq!(bytes[64..], [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        let header = headers[1].clone().into_bytes();
        let holds = |part: &[u8]| header.windows(part.len()).any(|found| found == part);
        assert!(holds(b"w.bin") && holds(b"offset\x12\x0264") && holds(b"length\x12\x018"));
        assert!(header.ends_with(&[0x70, 1]), "its place is outside");
        let inside = weights.inside().unwrap()[1].clone().into_bytes();
        let floats = [&[0x4a, 8][..], &bytes[64..]].concat();
        assert!(inside.ends_with(&floats));
    }
}
