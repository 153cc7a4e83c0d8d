//! The elementwise part of a highway layer, by rows, and its gradient; the bias's by columns in the end.

use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool;
use crate::cpu::real::{Real, sigmoid};
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Work};

/// Row-major; shapes as in [`mod@crate::highway`].
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a, T> {
    pub(crate) products: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) ys: &'a [T],
    pub(crate) shift: T,
}

impl<T: Real> Inputs<'_, T> {
    fn size(&self) -> usize {
        self.bias.len() / 2
    }

    fn rows(&self) -> usize {
        self.ys.len() / self.size().max(1)
    }

    /// A row's h and t.
    #[inline(always)]
    fn gates(&self, row: usize, h: &mut [T], t: &mut [T]) {
        let size = self.size();
        let (z_h, z_t) = self.products[2 * row * size..][..2 * size].split_at(size);
        let (b_h, b_t) = self.bias.split_at(size);
        rectify(h, z_h, b_h);
        open(t, z_t, b_t, self.shift);
    }
}

/// ReLU; what is not a number stays so.
#[inline(always)]
fn rectify<T: Real>(h: &mut [T], z: &[T], bias: &[T]) {
    let size = h.len();
    let z = &z[..size];
    let bias = &bias[..size];
    for i in 0..size {
        let x = z[i] + bias[i];
        h[i] = if x <= T::zero() { T::zero() } else { x };
    }
}

#[inline(always)]
fn open<T: Real>(t: &mut [T], z: &[T], bias: &[T], shift: T) {
    let size = t.len();
    let z = &z[..size];
    let bias = &bias[..size];
    for i in 0..size {
        t[i] = sigmoid::<T, false>(z[i] + bias[i] + shift);
    }
}

/// The forward pass on whatever kernel is chosen.
pub(crate) struct Forward<'a, T>(pub(crate) Inputs<'a, T>);

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = Vec<T>;

    fn run<K: Kernel<Element = T>>(self) -> Vec<T> {
        let inputs = self.0;
        let size = self.0.size();
        let mut out = vec![T::zero(); inputs.ys.len()];
        let shared = Shared::new(&mut out);
        pool::run(|worker| {
            let mut gates = vec![T::zero(); 2 * size];
            for row in worker.share(inputs.rows()) {
                // SAFETY: rows are shared out.
                let out = unsafe { shared.part(row * size, size) };
                K::vectorized(Row { inputs, row, gates: &mut gates, out });
            }
        });
        out
    }
}

/// A row of values.
struct Row<'a, T> {
    inputs: Inputs<'a, T>,
    row: usize,
    gates: &'a mut [T],
    out: &'a mut [T],
}

impl<T: Real> Work for Row<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let size = self.out.len();
        let (h, t) = self.gates.split_at_mut(size);
        self.inputs.gates(self.row, h, t);
        mix(self.out, &self.inputs.ys[self.row * size..][..size], h, t);
    }
}

#[inline(always)]
fn mix<T: Real>(out: &mut [T], ys: &[T], h: &[T], t: &[T]) {
    let size = out.len();
    let ys = &ys[..size];
    let h = &h[..size];
    let t = &t[..size];
    for i in 0..size {
        out[i] = ys[i] + t[i] * (h[i] - ys[i]);
    }
}

/// The backward pass on whatever kernel is chosen: the gradients of the products, the bias and what is carried.
pub(crate) struct Backward<'a, T> {
    pub(crate) inputs: Inputs<'a, T>,
    pub(crate) grad: &'a [T],
}

impl<T: Real> WithKernel<T> for Backward<'_, T> {
    type Output = [Vec<T>; 3];

    fn run<K: Kernel<Element = T>>(self) -> [Vec<T>; 3] {
        let Self { inputs, grad } = self;
        let [mut products, mut bias, mut ys] =
            [inputs.products, inputs.bias, inputs.ys].map(|values| vec![T::zero(); values.len()]);
        let to_products = Shared::new(&mut products);
        let to_bias = Shared::new(&mut bias);
        let to_ys = Shared::new(&mut ys);
        let size = inputs.size();
        pool::run(|worker| {
            for row in worker.share(inputs.rows()) {
                // SAFETY: rows are shared out.
                let (gates, ys) =
                    unsafe { (to_products.part(2 * row * size, 2 * size), to_ys.part(row * size, size)) };
                let grad = &grad[row * size..][..size];
                K::vectorized(RowBack { inputs, row, grad, gates, ys });
            }
            worker.barrier();
            let own = worker.share(2 * size);
            // SAFETY: columns are shared out, and the products' gradient is written.
            let sums = unsafe { to_bias.part(own.start, own.len()) };
            for row in 0..inputs.rows() {
                // SAFETY: as above.
                let terms = unsafe { to_products.read(2 * row * size + own.start, own.len()) };
                sums.iter_mut().zip(terms).for_each(|(sum, &term)| *sum += term);
            }
        });
        [products, bias, ys]
    }
}

/// A row of gradients.
struct RowBack<'a, T> {
    inputs: Inputs<'a, T>,
    row: usize,
    grad: &'a [T],
    /// The products' gradient.
    gates: &'a mut [T],
    ys: &'a mut [T],
}

impl<T: Real> Work for RowBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let size = self.ys.len();
        let (h, t) = self.gates.split_at_mut(size);
        self.inputs.gates(self.row, h, t);
        self.ys.copy_from_slice(&self.inputs.ys[self.row * size..][..size]);
        gate_grads(self.grad, h, t, self.ys);
    }
}

/// Gates become gradients of their pre-activations, and what was carried its own.
#[inline(always)]
fn gate_grads<T: Real>(grad: &[T], h: &mut [T], t: &mut [T], ys: &mut [T]) {
    let size = grad.len();
    let h = &mut h[..size];
    let t = &mut t[..size];
    let ys = &mut ys[..size];
    for i in 0..size {
        let g = grad[i];
        let h_i = h[i];
        let t_i = t[i];
        let y_i = ys[i];
        h[i] = if h_i > T::zero() { g * t_i } else { T::zero() };
        t[i] = g * (h_i - y_i) * t_i * (T::one() - t_i);
        ys[i] = g * (T::one() - t_i);
    }
}
