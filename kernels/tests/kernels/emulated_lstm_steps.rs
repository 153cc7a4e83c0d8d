//! The LSTM: one product and one launch a step.

use crate::emulated_case::{distance, random};
use crate::emulated_rhn_window::{Matrix, Operands, product};
use crate::emulator::{Emulator, Geometry, Script, emulator};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::scan::HiddenMask;
use rhn_kernels::scan::persistent::launch_plan::stride;
use rhn_kernels::scan::reference;
use std::fmt::Display;

/// A window of random numbers.
struct Case {
    time: usize,
    batch: usize,
    hidden: usize,
    inputs: Vec<(&'static str, Vec<f32>)>,
    masked: bool,
}

/// What is compared: h, the last c, and all gradients.
const PARTS: [&str; 5] = ["outputs", "last_cell", "projected_grad", "recurrent_grad", "bias_grad"];

impl Case {
    fn new([time, batch, hidden]: [usize; 3], masked: bool) -> Self {
        let named = |name: &'static str, count, scale| (name, random(name, count, scale));
        let kept = |x: &f32| if *x < -0.5 { 0.0 } else { 4.0 / 3.0 };
        let mask = random("mask", batch * hidden, 1.0).iter().map(kept).collect();
        let inputs = vec![
            named("projected", time * batch * 4 * hidden, 1.0),
            named("recurrent", hidden * 4 * hidden, 1.5 / (hidden as f64).sqrt()),
            named("bias", 4 * hidden, 0.5),
            named("h", batch * hidden, 0.8),
            named("c", batch * hidden, 0.8),
            named("grads", time * batch * hidden, 1.0),
            ("mask", mask),
        ];
        Self { time, batch, hidden, inputs, masked }
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Tensor {
        let (_, values) = self.inputs.iter().find(|(other, _)| *other == name).unwrap();
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
    }

    fn exact(&self) -> [Vec<f64>; 5] {
        let Self { time, batch, hidden, .. } = *self;
        let var = |name, shape: &[usize]| Var::from_tensor(&self.tensor(name, shape)).unwrap();
        let projected = var("projected", &[time, batch, 4 * hidden]);
        let recurrent = var("recurrent", &[hidden, 4 * hidden]);
        let bias = var("bias", &[4 * hidden]);
        let [h, c, mask] = ["h", "c", "mask"].map(|name| self.tensor(name, &[batch, hidden]));
        let mask = if self.masked { HiddenMask::Shared(mask) } else { HiddenMask::None };
        let (outputs, cell) = reference::lstm(&projected, &recurrent, &bias, [&h, &c], &mask).unwrap();
        let loss = (&outputs * self.tensor("grads", &[time, batch, hidden])).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let grad = |var: &Var| grads.get(var).expect("a gradient").clone();
        [outputs, cell, grad(&projected), grad(&recurrent), grad(&bias)]
            .map(|part| part.flatten_all().unwrap().to_vec1::<f64>().unwrap())
    }

    /// As the operation orders its launches.
    fn script(&self, operands: Operands) -> Script {
        let Self { time, batch, hidden, .. } = *self;
        let (mut script, stride, rows) = (Script::new(), stride(hidden), time * batch);
        self.inputs.iter().for_each(|(name, values)| script.load(name, values));
        for (name, count) in
            [("cells", rows * stride), ("sums", batch * 4 * stride), ("carried", batch * hidden)]
        {
            script.buffer::<f32>(name, count);
        }
        script.buffer::<f32>("outputs", rows * hidden);
        script.buffer::<f32>("last_cell", batch * hidden);
        script.load("gates", &vec![0f32; rows * 4 * stride]);
        operands.zeros(&mut script, "operands", rows * stride);
        operands.zeros(&mut script, "packed", stride * 4 * stride);
        if operands == Operands::Bf16 {
            operands.zeros(&mut script, "gate_operands", rows * 4 * stride);
        }
        self.passes(&mut script, operands, stride);
        self.grads(&mut script, operands, stride);
        script
    }

    fn passes(&self, script: &mut Script, operands: Operands, stride: usize) {
        let Self { time, batch, hidden, .. } = self;
        let mask = if self.masked { "&mask" } else { "0" };
        let cells = Geometry::flat((batch * hidden).div_ceil(64), 64);
        let launch = |script: &mut Script, kernel: &str, geometry, arguments: &[&dyn Display]| {
            let sizes: [&dyn Display; 4] = [time, batch, hidden, &stride];
            let kernel = format!("lstm_{kernel}_{}", operands.name());
            script.launch(&kernel, geometry, &[&sizes, arguments].concat());
        };
        let sums = |pitch| Matrix { buffer: "&sums", first: 0, row: pitch, column: 1 };
        launch(script, "pack", Geometry::flat(2, 64), &[&"&recurrent", &"&packed"]);
        launch(script, "first_state", cells, &[&"&h", &"&c", &mask, &"&cells", &"&operands"]);
        for step in 0..*time {
            let h = Matrix { buffer: "&operands", first: step * batch * stride, row: stride, column: 1 };
            let weights = Matrix { buffer: "&packed", first: 0, row: 4 * stride, column: 1 };
            product(script, operands, [*batch, 4 * stride, stride], h, weights, sums(4 * stride));
            let arguments: [&dyn Display; 10] = [
                &step,
                &"&sums",
                &"&projected",
                &"&bias",
                &mask,
                &"&cells",
                &"&gates",
                &"&operands",
                &"&outputs",
                &"&last_cell",
            ];
            launch(script, "forward_step", cells, &arguments);
        }
        for step in (0..*time).rev() {
            let sent = if step + 1 == *time { "0" } else { "&sums" };
            let gate_operands = operands.of_gates();
            let arguments: [&dyn Display; 8] =
                [&step, &sent, &"&grads", &mask, &"&cells", &"&carried", &"&gates", &gate_operands];
            launch(script, "backward_step", cells, &arguments);
            if step > 0 {
                let first = step * batch * 4 * stride;
                let grads = Matrix { buffer: gate_operands, first, row: 4 * stride, column: 1 };
                let weights = Matrix { buffer: "&packed", first: 0, row: 1, column: 4 * stride };
                product(script, operands, [*batch, stride, 4 * stride], grads, weights, sums(stride));
            }
        }
    }

    fn grads(&self, script: &mut Script, operands: Operands, stride: usize) {
        let (hidden, rows) = (self.hidden, self.time * self.batch);
        script.buffer::<f32>("recurrent_grad", hidden * 4 * hidden);
        script.buffer::<f32>("bias_grad", 4 * hidden);
        script.buffer::<f32>("projected_grad", rows * 4 * hidden);
        for gate in 0..4 {
            let h = Matrix { buffer: "&operands", first: 0, row: 1, column: stride };
            let grads =
                Matrix { buffer: operands.of_gates(), first: gate * stride, row: 4 * stride, column: 1 };
            let target =
                Matrix { buffer: "&recurrent_grad", first: gate * hidden, row: 4 * hidden, column: 1 };
            product(script, operands, [hidden, hidden, rows], h, grads, target);
        }
        let sums = Geometry { grid: [4 * stride / 32, 1, 1], block: [32, 8, 1], ..Geometry::default() };
        script.launch("window_bias_grad", sums, &[&rows, &hidden, &stride, &4, &"&gates", &"&bias_grad"]);
        script.launch(
            "window_projected_grad",
            Geometry::flat(3, 64),
            &[&rows, &hidden, &stride, &4, &"&gates", &"&projected_grad"],
        );
    }

    fn check(&self, emulator: &Emulator, operands: Operands, tolerance: f64) {
        let found = self.script(operands).run(emulator, &PARTS);
        for (name, exact) in PARTS.iter().zip(self.exact()) {
            let distance = distance(&found.get::<f32>(name), &exact);
            let Self { time, batch, hidden, masked, .. } = self;
            assert!(
                distance <= tolerance,
                "{name}, T {time} B {batch} H {hidden}, mask {masked}: {distance:e}"
            );
        }
    }
}

fn check(operands: Operands, tolerance: f64) {
    let Some(emulator) = emulator() else { return };
    for (sizes, masked) in [([1, 1, 7], true), ([5, 3, 7], false), ([4, 20, 7], true), ([2, 3, 33], true)] {
        Case::new(sizes, masked).check(emulator, operands, tolerance);
    }
}

#[test]
fn an_lstm_equals_the_oracle_in_single_precision() {
    check(Operands::F32, 1e-5);
}

#[test]
fn an_lstm_is_near_the_oracle_in_bf16() {
    check(Operands::Bf16, 2e-2); // operands of 2^-9
}
