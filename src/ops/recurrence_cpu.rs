//! The RHN recurrence on the CPU: one product and one pass over the gates a sublayer and time step forward,
//! the same backward, and one large product a sublayer for all weight gradients of the window.

use super::product::{Matrix, product};
use super::real::{Real, sigmoid};
use pulp::Arch;
use rayon::prelude::*;

/// Values of a state below which one thread passes over the gates sooner than several.
const WORTH_SHARING: usize = 1 << 13;

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) time: usize,
    pub(super) batch: usize,
    pub(super) depth: usize,
    pub(super) hidden: usize,
}

/// Row-major; shapes as in [`super::recurrence::rhn`].
pub(super) struct Inputs<'a, T> {
    pub(super) projected: &'a [T],
    pub(super) recurrent: &'a [T],
    pub(super) bias: &'a [T],
    pub(super) state: Vec<T>,
    pub(super) mask: Option<Vec<T>>,
    pub(super) sizes: Sizes,
}

/// What the backward pass needs, of either element type.
pub(super) enum Tape {
    F32(Record<f32>),
    F64(Record<f64>),
}

/// Values of every sublayer step; the sublayer is the outermost index, so that each has one matrix a window.
pub(super) struct Record<T> {
    sizes: Sizes,
    mask: Option<Vec<T>>,
    /// `(depth, time, batch, hidden)`: the state that enters the sublayer.
    states: Vec<T>,
    /// `(depth, time, batch, 2 hidden)`: h, then t.
    gates: Vec<T>,
}

pub(super) struct Grads<T> {
    pub(super) projected: Vec<T>,
    pub(super) recurrent: Vec<T>,
    pub(super) bias: Vec<T>,
}

/// How an element type's record becomes a tape.
pub(super) trait Recorded: Sized {
    fn tape(record: Record<Self>) -> Tape;
}

impl Recorded for f32 {
    fn tape(record: Record<f32>) -> Tape {
        Tape::F32(record)
    }
}

impl Recorded for f64 {
    fn tape(record: Record<f64>) -> Tape {
        Tape::F64(record)
    }
}

/// The states after each time step, `(time, batch, hidden)`, and the record if it is wanted.
pub(super) fn forward<T: Real>(inputs: &Inputs<'_, T>, records: bool) -> (Vec<T>, Option<Record<T>>) {
    let Sizes { time, batch, depth, hidden } = inputs.sizes;
    let (state_len, gates_len) = (batch * hidden, batch * 2 * hidden);
    let steps = if records { depth * time } else { 1 };
    let mut states = vec![T::zero(); steps * state_len];
    let mut gates = vec![T::zero(); steps * gates_len];
    let mut outputs = vec![T::zero(); time * state_len];
    let mut state = inputs.state.clone();
    let mut masked = vec![T::zero(); state_len];
    let arch = Arch::new();
    for step in 0..time {
        for sublayer in 0..depth {
            let at = if records { sublayer * time + step } else { 0 };
            if records {
                states[at * state_len..][..state_len].copy_from_slice(&state);
            }
            let z = &mut gates[at * gates_len..][..gates_len];
            if sublayer == 0 {
                z.copy_from_slice(&inputs.projected[step * gates_len..][..gates_len]);
            }
            let operand = masked_state(&state, inputs.mask.as_deref(), &mut masked);
            let weights = Matrix::new(
                &inputs.recurrent[sublayer * hidden * 2 * hidden..][..hidden * 2 * hidden],
                hidden,
                2 * hidden,
            );
            product(z, Matrix::new(operand, batch, hidden), weights, sublayer == 0);
            let bias = &inputs.bias[sublayer * 2 * hidden..][..2 * hidden];
            rows(z, 2 * hidden, &mut state, hidden, |z, state| arch.dispatch(|| highway(z, bias, state)));
        }
        outputs[step * state_len..][..state_len].copy_from_slice(&state);
    }
    let record = records.then(|| Record { sizes: inputs.sizes, mask: inputs.mask.clone(), states, gates });
    (outputs, record)
}

fn masked_state<'a, T: Real>(state: &'a [T], mask: Option<&[T]>, masked: &'a mut [T]) -> &'a [T] {
    let Some(mask) = mask else { return state };
    for ((out, &s), &m) in masked.iter_mut().zip(state).zip(mask) {
        *out = s * m;
    }
    masked
}

/// Runs `work` on the rows of two matrices, on all threads where that pays.
fn rows<T: Real>(
    a: &mut [T],
    a_row: usize,
    b: &mut [T],
    b_row: usize,
    work: impl Fn(&mut [T], &mut [T]) + Sync,
) {
    if b.len() < WORTH_SHARING {
        a.chunks_exact_mut(a_row).zip(b.chunks_exact_mut(b_row)).for_each(|(a, b)| work(a, b));
    } else {
        a.par_chunks_exact_mut(a_row)
            .zip(b.par_chunks_exact_mut(b_row))
            .with_min_len(4)
            .for_each(|(a, b)| work(a, b));
    }
}

/// One lane: pre-activations become gates, the state moves on.
#[inline(always)]
fn highway<T: Real>(z: &mut [T], bias: &[T], state: &mut [T]) {
    let hidden = state.len();
    let (zh, zt) = z.split_at_mut(hidden);
    let (bh, bt) = bias.split_at(hidden);
    for i in 0..hidden {
        let h = (zh[i] + bh[i]).fast_tanh();
        let t = sigmoid(zt[i] + bt[i]);
        zh[i] = h;
        zt[i] = t;
        state[i] = state[i] + t * (h - state[i]);
    }
}

/// Gradients of everything but the first state, from that of the outputs `(time, batch, hidden)`.
pub(super) fn backward<T: Real>(mut record: Record<T>, recurrent: &[T], grad: &[T]) -> Grads<T> {
    let Sizes { time, batch, hidden, .. } = record.sizes;
    walk_back(&mut record, recurrent, grad);
    let (recurrent, bias) = weight_grads(&record);
    record.gates.truncate(time * batch * 2 * hidden); // the first sublayer's
    Grads { projected: record.gates, recurrent, bias }
}

/// From the last step to the first: gates become gradients of their pre-activations, and the states that entered
/// sublayers become what entered their products.
fn walk_back<T: Real>(record: &mut Record<T>, recurrent: &[T], grad: &[T]) {
    let Sizes { time, batch, depth, hidden } = record.sizes;
    let (state_len, gates_len, weights_len) = (batch * hidden, batch * 2 * hidden, 2 * hidden * hidden);
    let transposed = transposed(recurrent, hidden, 2 * hidden);
    let mut state_grad = vec![T::zero(); state_len];
    let mut product_grad = vec![T::zero(); state_len];
    for step in (0..time).rev() {
        add(&mut state_grad, &grad[step * state_len..][..state_len]);
        for sublayer in (0..depth).rev() {
            let at = sublayer * time + step;
            let z = &mut record.gates[at * gates_len..][..gates_len];
            let entering = &mut record.states[at * state_len..][..state_len];
            gate_grads(z, entering, &mut state_grad, hidden);
            let weights =
                Matrix::new(&transposed[sublayer * weights_len..][..weights_len], 2 * hidden, hidden);
            product(&mut product_grad, Matrix::new(z, batch, 2 * hidden), weights, false);
            if let Some(mask) = &record.mask {
                multiply(&mut product_grad, mask);
                multiply(entering, mask);
            }
            add(&mut state_grad, &product_grad);
        }
    }
}

/// One product a sublayer for all steps: gradients of the recurrent weights and of the biases.
fn weight_grads<T: Real>(record: &Record<T>) -> (Vec<T>, Vec<T>) {
    let Sizes { time, batch, depth, hidden } = record.sizes;
    let (rows, weights_len) = (time * batch, 2 * hidden * hidden);
    let mut recurrent = vec![T::zero(); depth * weights_len];
    let mut bias = vec![T::zero(); depth * 2 * hidden];
    for sublayer in 0..depth {
        let z = &record.gates[sublayer * rows * 2 * hidden..][..rows * 2 * hidden];
        let entered = Matrix::new(&record.states[sublayer * rows * hidden..][..rows * hidden], rows, hidden);
        let target = &mut recurrent[sublayer * weights_len..][..weights_len];
        product(target, entered.t(), Matrix::new(z, rows, 2 * hidden), false);
        let bias = &mut bias[sublayer * 2 * hidden..][..2 * hidden];
        z.chunks_exact(2 * hidden).for_each(|row| add(bias, row));
    }
    (recurrent, bias)
}

/// [`highway_grad`] for every lane, on all threads where that pays.
fn gate_grads<T: Real>(z: &mut [T], states: &[T], grads: &mut [T], hidden: usize) {
    let arch = Arch::new();
    let work = |z: &mut [T], state: &[T], grad: &mut [T]| arch.dispatch(|| highway_grad(z, state, grad));
    if states.len() < WORTH_SHARING {
        let lanes = z.chunks_exact_mut(2 * hidden).zip(states.chunks_exact(hidden));
        lanes.zip(grads.chunks_exact_mut(hidden)).for_each(|((z, state), grad)| work(z, state, grad));
    } else {
        let lanes = z.par_chunks_exact_mut(2 * hidden).zip(states.par_chunks_exact(hidden));
        let lanes = lanes.zip(grads.par_chunks_exact_mut(hidden)).with_min_len(4);
        lanes.for_each(|((z, state), grad)| work(z, state, grad));
    }
}

/// One lane: gates become gradients of their pre-activations, the state's gradient keeps the carry's part.
#[inline(always)]
fn highway_grad<T: Real>(z: &mut [T], state: &[T], grad: &mut [T]) {
    let hidden = state.len();
    let (zh, zt) = z.split_at_mut(hidden);
    for i in 0..hidden {
        let (h, t, g) = (zh[i], zt[i], grad[i]);
        zh[i] = g * t * (T::one() - h * h);
        zt[i] = g * (h - state[i]) * t * (T::one() - t);
        grad[i] = g * (T::one() - t);
    }
}

fn add<T: Real>(sum: &mut [T], term: &[T]) {
    for (sum, &term) in sum.iter_mut().zip(term) {
        *sum += term;
    }
}

fn multiply<T: Real>(values: &mut [T], factors: &[T]) {
    for (value, &factor) in values.iter_mut().zip(factors) {
        *value *= factor;
    }
}

/// Each `rows × columns` matrix of `data` transposed: products with row-major weights are much the faster.
fn transposed<T: Real>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    const TILE: usize = 16;
    let mut out = vec![T::zero(); data.len()];
    let one = |(from, to): (&[T], &mut [T])| {
        for row in (0..rows).step_by(TILE) {
            for column in (0..columns).step_by(TILE) {
                for r in row..(row + TILE).min(rows) {
                    for c in column..(column + TILE).min(columns) {
                        to[c * rows + r] = from[r * columns + c];
                    }
                }
            }
        }
    };
    data.par_chunks_exact(rows * columns).zip(out.par_chunks_exact_mut(rows * columns)).for_each(one);
    out
}
