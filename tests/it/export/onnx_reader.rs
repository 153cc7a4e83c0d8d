//! Reads an ONNX file and computes it with plain tensor operations, one node after another: only the operators that an
//! export has, and only as the specification of version 17 defines them.

use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Values by name.
pub(crate) type Values = HashMap<String, Tensor>;

/// A field of a message: a number, or bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message by number, in order.
struct Message<'a>(BTreeMap<u64, Vec<Field<'a>>>);

impl<'a> Message<'a> {
    fn parse(mut bytes: &'a [u8]) -> Self {
        let mut fields: BTreeMap<u64, Vec<Field>> = BTreeMap::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Number(varint(&mut bytes)),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    Field::Bytes(value)
                }
                kind => panic!("a field of kind {kind}"),
            };
            fields.entry(key >> 3).or_default().push(field);
        }
        Self(fields)
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &'a [u8]> {
        self.0.get(&field).into_iter().flatten().map(|field| match field {
            Field::Bytes(bytes) => *bytes,
            Field::Number(_) => panic!("a number, wanted bytes"),
        })
    }

    fn numbers(&self, field: u64) -> Vec<u64> {
        let number = |field: &Field| match field {
            Field::Number(number) => *number,
            Field::Bytes(_) => panic!("bytes, wanted a number"),
        };
        self.0.get(&field).into_iter().flatten().map(number).collect()
    }

    fn bytes(&self, field: u64) -> &'a [u8] {
        self.all(field).next().unwrap_or_default()
    }

    fn texts(&self, field: u64) -> Vec<String> {
        self.all(field).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    fn text(&self, field: u64) -> String {
        self.texts(field).remove(0)
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}

/// A graph, and the weights in it.
pub(crate) struct Onnx<'a> {
    graph: Message<'a>,
    pub(crate) weights: Values,
}

impl<'a> Onnx<'a> {
    /// The graph of a file.
    pub(crate) fn parse(file: &'a [u8]) -> Self {
        let model = Message::parse(file);
        assert_eq!(model.numbers(1), [8], "the version of the format");
        let opset = Message::parse(model.bytes(8));
        assert_eq!(
            (opset.text(1), opset.numbers(2)),
            (String::new(), vec![17]),
            "the version of the operators"
        );
        let graph = Message::parse(model.bytes(7));
        let weights = graph.all(5).map(weight).collect();
        Self { graph, weights }
    }

    /// The names of the inputs.
    pub(crate) fn inputs(&self) -> Vec<String> {
        names(&self.graph, 11)
    }

    /// The outputs in their order, with their names.
    pub(crate) fn run(&self, inputs: &Values) -> Vec<(String, Tensor)> {
        let mut values = self.weights.clone();
        values.extend(inputs.clone());
        run(&self.graph, &mut values);
        names(&self.graph, 12).into_iter().map(|name| (name.clone(), values[&name].clone())).collect()
    }
}

fn names(graph: &Message, field: u64) -> Vec<String> {
    graph.all(field).map(|value| Message::parse(value).text(1)).collect()
}

fn weight(bytes: &[u8]) -> (String, Tensor) {
    let tensor = Message::parse(bytes);
    let shape: Vec<usize> = tensor.numbers(1).into_iter().map(|size| size as usize).collect();
    let raw = tensor.bytes(9);
    let tensor_of = match tensor.numbers(2)[..] {
        [1] => {
            let values = raw.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)
        }
        [7] => {
            let values = raw.chunks(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
            Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)
        }
        ref other => panic!("elements of type {other:?}"),
    };
    (tensor.text(8), tensor_of.unwrap())
}

fn run(graph: &Message, values: &mut Values) {
    for node in graph.all(1) {
        let node = Message::parse(node);
        let given: Vec<Tensor> = node.texts(1).iter().map(|name| values[name].clone()).collect();
        let outputs = match node.text(4).as_str() {
            "Identity" => vec![given[0].clone()],
            "Add" => vec![given[0].broadcast_add(&given[1]).unwrap()],
            "Sub" => vec![given[0].broadcast_sub(&given[1]).unwrap()],
            "Mul" => vec![given[0].broadcast_mul(&given[1]).unwrap()],
            "Tanh" => vec![given[0].tanh().unwrap()],
            "Sigmoid" => vec![(given[0].neg().unwrap().exp().unwrap() + 1.0).unwrap().recip().unwrap()],
            "Exp" => vec![given[0].exp().unwrap()],
            "Log" => vec![given[0].log().unwrap()],
            "Max" => vec![given.iter().skip(1).fold(given[0].clone(), |most, x| most.maximum(x).unwrap())],
            "Sum" => vec![given.iter().skip(1).fold(given[0].clone(), |sum, x| (sum + x).unwrap())],
            "LogSoftmax" => {
                assert_eq!(attribute(&node, "axis").numbers(3), [-1i64 as u64]);
                let last = given[0].rank() - 1;
                let sum = given[0].exp().unwrap().sum_keepdim(last).unwrap().log().unwrap();
                vec![given[0].broadcast_sub(&sum).unwrap()]
            }
            "Transpose" => vec![given[0].t().unwrap().contiguous().unwrap()],
            "MatMul" => vec![given[0].broadcast_matmul(&given[1]).unwrap()],
            "Gather" => {
                let rows = given[0].index_select(&given[1].flatten_all().unwrap(), 0).unwrap();
                vec![rows.reshape([given[1].dims(), &given[0].dims()[1..]].concat()).unwrap()]
            }
            "Split" => split(&node, &given),
            "Scan" => scan(&node, &given, values),
            other => panic!("the operator {other}"),
        };
        values.extend(node.texts(2).into_iter().zip(outputs));
    }
}

fn attribute<'a>(node: &Message<'a>, name: &str) -> Message<'a> {
    node.all(5).map(Message::parse).find(|attribute| attribute.text(1) == name).unwrap()
}

fn split(node: &Message, given: &[Tensor]) -> Vec<Tensor> {
    assert_eq!(attribute(node, "axis").numbers(3), [-1i64 as u64]);
    let last = given[0].rank() - 1;
    let mut start = 0;
    let part = |size: &i64| {
        let part = given[0].narrow(last, start, *size as usize).unwrap().contiguous().unwrap();
        start += *size as usize;
        part
    };
    let parts = given[1].to_vec1::<i64>().unwrap().iter().map(part).collect();
    assert_eq!(start, given[0].dims()[last], "the parts are the whole");
    parts
}

/// A scan over dimension 1 of its last input; what the body gives last is stacked there.
fn scan(node: &Message, given: &[Tensor], values: &Values) -> Vec<Tensor> {
    assert_eq!(attribute(node, "num_scan_inputs").numbers(3), [1]);
    assert_eq!(attribute(node, "scan_input_axes").numbers(8), [1]);
    assert_eq!(attribute(node, "scan_output_axes").numbers(8), [1]);
    let body = Message::parse(attribute(node, "body").bytes(6));
    let (xs, state) = given.split_last().unwrap();
    let inputs = names(&body, 11);
    let outputs = names(&body, 12);
    let mut state = state.to_vec();
    let mut ys = Vec::new();
    for time in 0..xs.dim(1).unwrap() {
        let mut inside = values.clone();
        let x = xs.narrow(1, time, 1).unwrap().squeeze(1).unwrap();
        inside.extend(inputs.iter().cloned().zip(state.iter().cloned().chain([x])));
        run(&body, &mut inside);
        state = outputs.iter().map(|name| inside[name].clone()).collect();
        ys.push(state.pop().unwrap());
    }
    state.push(Tensor::stack(&ys, 1).unwrap());
    state
}
