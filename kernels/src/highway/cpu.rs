//! The elementwise part of a highway layer, by rows, and its gradient; the bias's by columns in the end.

use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool;
use crate::cpu::real::{Real, sigmoid};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;

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

    /// A row's h, by a ReLU that leaves what is not a number as it is, and t.
    #[inline(always)]
    fn gates(&self, row: usize, h: &mut [T], t: &mut [T]) {
        let size = self.size();
        let (z_h, z_t) = self.products[2 * row * size..][..2 * size].split_at(size);
        let (b_h, b_t) = self.bias.split_at(size);
        for (h, (&z, &b)) in h.iter_mut().zip(z_h.iter().zip(b_h)) {
            let x = z + b;
            *h = if x <= T::zero() { T::zero() } else { x };
        }
        for (t, (&z, &b)) in t.iter_mut().zip(z_t.iter().zip(b_t)) {
            *t = sigmoid::<T, false>(z + b + self.shift);
        }
    }

    /// A row's values; `gates` is a buffer for h and t.
    #[inline(always)]
    fn mix(&self, row: usize, gates: &mut [T], out: &mut [T]) {
        let (h, t) = gates.split_at_mut(out.len());
        self.gates(row, h, t);
        let ys = &self.ys[row * out.len()..][..out.len()];
        for ((out, &y), (&mut h, &mut t)) in out.iter_mut().zip(ys).zip(h.iter_mut().zip(t)) {
            *out = y + t * (h - y);
        }
    }

    /// A row's gradients, from `grad` of its values: `gates` of the products, `ys` of what was carried.
    #[inline(always)]
    fn mix_back(&self, row: usize, grad: &[T], gates: &mut [T], ys: &mut [T]) {
        let (h, t) = gates.split_at_mut(ys.len());
        self.gates(row, h, t);
        ys.copy_from_slice(&self.ys[row * ys.len()..][..ys.len()]);
        for ((h, t), (y, &g)) in h.iter_mut().zip(t).zip(ys.iter_mut().zip(grad)) {
            let t_grad = g * (*h - *y) * *t * (T::one() - *t);
            *h = if *h > T::zero() { g * *t } else { T::zero() };
            *y = g * (T::one() - *t);
            *t = t_grad;
        }
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
                K::vectorized(
                    #[inline(always)]
                    || inputs.mix(row, &mut gates, out),
                );
            }
        });
        out
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
                K::vectorized(
                    #[inline(always)]
                    || inputs.mix_back(row, grad, gates, ys),
                );
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
