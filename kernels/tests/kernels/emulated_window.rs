//! The buffers of a window, as the kernels of either path take them, and the products that a library makes.

use crate::emulated_case::{Case, PARTS};
use crate::emulator::{Emulator, LaunchShape, Script};
use rhn_kernels::scan::persistent::launch_plan::stride;
use std::fmt::Display;

/// The numbers that products multiply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operands {
    F32,
    Bf16,
}

impl Operands {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// In bytes.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Where the gradients of the gates' products are, for products.
    pub(crate) fn of_gates(self) -> &'static str {
        match self {
            Self::F32 => "&saved",
            Self::Bf16 => "&gate_operands",
        }
    }

    /// A buffer of operands, all zero.
    pub(crate) fn zeros(self, script: &mut Script, name: &str, count: usize) {
        match self {
            Self::F32 => script.load(name, &vec![0f32; count]),
            Self::Bf16 => script.load(name, &vec![0u16; count]),
        }
    }
}

/// A window's launches.
pub(crate) struct Window<'a> {
    pub(crate) case: &'a Case,
    pub(crate) operands: Operands,
    pub(crate) script: Script,
    pub(crate) stride: usize,
}

impl<'a> Window<'a> {
    /// Inputs, and buffers that were not written; only the operands' padding is promised to be zero.
    pub(crate) fn new(case: &'a Case, operands: Operands) -> Self {
        let mut script = Script::new();
        let stride = stride(case.hidden);
        let inputs = [
            ("projected", &case.projected),
            ("recurrent", &case.recurrent),
            ("bias", &case.bias),
            ("state", &case.state),
            ("grads", &case.grads),
        ];
        inputs.into_iter().for_each(|(name, values)| script.load(name, values));
        if let Some(mask) = &case.mask {
            script.load("mask", mask);
        }
        let rows = case.depth * case.time * case.batch;
        let saved = rows * case.saved * stride;
        script.buffer::<f32>("states", rows * case.parts * stride);
        script.buffer::<f32>("last", (case.parts - 1) * case.batch * case.hidden);
        script.buffer::<f32>("outputs", case.time * case.batch * case.hidden);
        operands.zeros(&mut script, "operands", rows * stride);
        match operands {
            Operands::F32 => script.load("saved", &vec![0f32; saved]), // operands themselves
            Operands::Bf16 => script.buffer::<f32>("saved", saved),
        }
        if operands == Operands::Bf16 {
            operands.zeros(&mut script, "gate_operands", saved);
        }
        Self { case, operands, script, stride }
    }

    pub(crate) fn mask(&self) -> &'static str {
        if self.case.mask.is_some() { "&mask" } else { "0" }
    }

    /// A launch whose first arguments are the window's sizes.
    pub(crate) fn launch(&mut self, kernel: &str, launch_shape: LaunchShape, arguments: &[&dyn Display]) {
        let Case { time, batch, depth, hidden, .. } = self.case;
        let sizes: [&dyn Display; 5] = [time, batch, depth, hidden, &self.stride];
        self.script.launch(kernel, launch_shape, &[&sizes, arguments].concat());
    }

    /// [`product`] of this window's operands.
    pub(crate) fn product(&mut self, extent: [usize; 3], a: Matrix, b: Matrix, c: Matrix) {
        product(&mut self.script, self.operands, extent, a, b, c);
    }

    /// The gradients of the weights, one product for each sublayer and gate; of the biases and the projection.
    pub(crate) fn grads(&mut self) {
        let Case { time, batch, depth, hidden, gates, saved, .. } = *self.case;
        let stride = self.stride;
        let rows = time * batch;
        self.script.buffer::<f32>("recurrent_grad", depth * hidden * gates * hidden);
        self.script.buffer::<f32>("bias_grad", depth * gates * hidden);
        self.script.buffer::<f32>("projected_grad", rows * gates * hidden);
        for (sublayer, gate) in (0..depth).flat_map(|sublayer| (0..gates).map(move |gate| (sublayer, gate))) {
            let first = (sublayer * rows * saved + gate) * stride;
            self.product(
                [hidden, hidden, rows],
                Matrix { buffer: "&operands", first: sublayer * rows * stride, row: 1, column: stride },
                Matrix { buffer: self.operands.of_gates(), first, row: saved * stride, column: 1 },
                Matrix {
                    buffer: "&recurrent_grad",
                    first: (sublayer * gates * hidden + gate) * hidden,
                    row: gates * hidden,
                    column: 1,
                },
            );
        }
        let grid = [gates * stride / 32, depth, 1];
        let sums = LaunchShape { grid, block: [32, 8, 1], ..LaunchShape::default() };
        self.script.launch(
            "window_bias_grad",
            sums,
            &[&rows, &hidden, &stride, &gates, &saved, &"&saved", &"&bias_grad"],
        );
        let positions = self.case.positions.iter().rev().fold(0, |bits, position| bits << 4 | position);
        self.script.launch(
            "window_projected_grad",
            LaunchShape::flat(3, 64),
            &[&rows, &hidden, &stride, &gates, &saved, &positions, &"&saved", &"&projected_grad"],
        );
    }

    /// The parts, in every order of threads, which must not matter, or in one.
    pub(crate) fn found(&self, emulator: &Emulator, every_order: bool) -> Vec<Vec<f32>> {
        let results = if every_order {
            self.script.run(emulator, &PARTS)
        } else {
            self.script.run_in_order(emulator, &PARTS, 1).unwrap()
        };
        PARTS.iter().map(|part| results.get(part)).collect()
    }
}

/// `(m, inner)` by `(inner, n)`, as a library would.
pub(crate) fn product(
    script: &mut Script,
    operands: Operands,
    [m, n, inner]: [usize; 3],
    a: Matrix,
    b: Matrix,
    c: Matrix,
) {
    let kernel = format!("probe_product_{}", operands.name());
    let at = |matrix: &Matrix, size: usize| format!("{}+{}", matrix.buffer, matrix.first * size);
    let a_at = at(&a, operands.size());
    let b_at = at(&b, operands.size());
    let c_at = at(&c, 4);
    script.launch(
        &kernel,
        LaunchShape::flat(4, 32),
        &[&m, &n, &inner, &a_at, &a.row, &a.column, &b_at, &b.row, &b.column, &c_at, &c.row],
    );
}

/// Where element (i, j) of a matrix is: `first + i · row + j · column`.
pub(crate) struct Matrix {
    pub(crate) buffer: &'static str,
    pub(crate) first: usize,
    pub(crate) row: usize,
    pub(crate) column: usize,
}
