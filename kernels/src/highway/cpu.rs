//! The elementwise part of a highway layer, by rows, and its gradient; the bias's by columns in the end.

use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool;
use crate::cpu::real::{Real, sigmoid};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::highway::variant::Variant;

/// Row-major; shapes as in [`mod@crate::highway`].
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a, T> {
    pub(crate) variant: Variant,
    pub(crate) products: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) ys: &'a [T],
    pub(crate) transform_bias: T,
}

impl<T: Real> Inputs<'_, T> {
    fn size(&self) -> usize {
        self.bias.len() / self.variant.columns()
    }

    fn rows(&self) -> usize {
        self.ys.len() / self.size().max(1)
    }

    /// A row's H, by a ReLU that leaves what is not a number as it is, then its gates.
    #[inline(always)]
    fn activate(&self, row: usize, columns: &mut [T]) {
        let size = self.size();
        let z = &self.products[row * columns.len()..][..columns.len()];
        let (h, gates) = columns.split_at_mut(size);
        for ((h, &z), &b) in h.iter_mut().zip(z).zip(self.bias) {
            let x = z + b;
            *h = if x <= T::zero() { T::zero() } else { x };
        }
        for (index, &sign) in self.variant.gate_signs().iter().enumerate() {
            let start = index * size;
            let shift = T::from_f64(sign) * self.transform_bias;
            let z = &z[size + start..][..size];
            let b = &self.bias[size + start..][..size];
            for ((gate, &z), &b) in gates[start..][..size].iter_mut().zip(z).zip(b) {
                *gate = sigmoid::<T, false>(z + b + shift);
            }
        }
    }

    /// A row's values; `columns` is a buffer for H and the gates.
    #[inline(always)]
    fn mix(&self, row: usize, columns: &mut [T], out: &mut [T]) {
        self.activate(row, columns);
        let size = out.len();
        let ys = &self.ys[row * size..][..size];
        let (h, gates) = columns.split_at(size);
        let gated = out.iter_mut().zip(ys.iter().zip(h).zip(gates));
        match self.variant {
            Variant::Coupled => gated.for_each(|(out, ((&y, &h), &t))| *out = y + t * (h - y)),
            Variant::Full => {
                let carry = &gates[size..];
                gated.zip(carry).for_each(|((out, ((&y, &h), &t)), &c)| *out = h * t + y * c);
            }
            Variant::CarryOnly => gated.for_each(|(out, ((&y, &h), &c))| *out = h + y * c),
            Variant::TransformOnly => gated.for_each(|(out, ((&y, &h), &t))| *out = h * t + y),
            Variant::Residual => {
                out.iter_mut().zip(ys.iter().zip(h)).for_each(|(out, (&y, &h))| *out = h + y)
            }
            Variant::Plain => out.copy_from_slice(h),
        }
    }

    /// A row's gradients, from `grad` of its values: `columns` of the products, `ys` of the layer's input.
    #[inline(always)]
    fn mix_back(&self, row: usize, grad: &[T], columns: &mut [T], ys: &mut [T]) {
        self.activate(row, columns);
        let size = ys.len();
        ys.copy_from_slice(&self.ys[row * size..][..size]);
        let (h, gates) = columns.split_at_mut(size);
        let (gate, carry) = gates.split_at_mut(size.min(gates.len()));
        let one = T::one();
        let active = |h: T, grad: T| if h > T::zero() { grad } else { T::zero() };
        let gated = h.iter_mut().zip(gate).zip(ys.iter_mut().zip(grad));
        match self.variant {
            Variant::Coupled => gated.for_each(|((h, t), (y, &g))| {
                let t_grad = g * (*h - *y) * *t * (one - *t);
                *h = active(*h, g * *t);
                *y = g * (one - *t);
                *t = t_grad;
            }),
            Variant::Full => gated.zip(carry).for_each(|(((h, t), (y, &g)), c)| {
                let t_grad = g * *h * *t * (one - *t);
                let c_grad = g * *y * *c * (one - *c);
                *h = active(*h, g * *t);
                *y = g * *c;
                *t = t_grad;
                *c = c_grad;
            }),
            Variant::CarryOnly => gated.for_each(|((h, c), (y, &g))| {
                let c_grad = g * *y * *c * (one - *c);
                *h = active(*h, g);
                *y = g * *c;
                *c = c_grad;
            }),
            Variant::TransformOnly => gated.for_each(|((h, t), (y, &g))| {
                let t_grad = g * *h * *t * (one - *t);
                *h = active(*h, g * *t);
                *y = g;
                *t = t_grad;
            }),
            Variant::Residual => {
                h.iter_mut().zip(grad).for_each(|(h, &g)| *h = active(*h, g));
                ys.copy_from_slice(grad);
            }
            Variant::Plain => {
                h.iter_mut().zip(grad).for_each(|(h, &g)| *h = active(*h, g));
                ys.fill(T::zero());
            }
        }
    }
}

/// The forward pass on whatever kernel is chosen.
pub(crate) struct Forward<'a, T>(pub(crate) Inputs<'a, T>);

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = Vec<T>;

    fn run<K: Kernel<Element = T>>(self) -> Vec<T> {
        let inputs = self.0;
        let size = inputs.size();
        let width = inputs.bias.len();
        let mut out = vec![T::zero(); inputs.ys.len()];
        let shared = Shared::new(&mut out);
        pool::run(|worker| {
            let mut columns = vec![T::zero(); width];
            for row in worker.share(inputs.rows()) {
                // SAFETY: rows are shared out.
                let out = unsafe { shared.part(row * size, size) };
                K::vectorized(
                    #[inline(always)]
                    || inputs.mix(row, &mut columns, out),
                );
            }
        });
        out
    }
}

/// The backward pass on whatever kernel is chosen: the gradients of the products, the bias and the layer's input.
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
        let width = inputs.bias.len();
        pool::run(|worker| {
            for row in worker.share(inputs.rows()) {
                // SAFETY: rows are shared out.
                let (columns, ys) =
                    unsafe { (to_products.part(row * width, width), to_ys.part(row * size, size)) };
                let grad = &grad[row * size..][..size];
                K::vectorized(
                    #[inline(always)]
                    || inputs.mix_back(row, grad, columns, ys),
                );
            }
            worker.barrier();
            let own = worker.share(width);
            // SAFETY: columns are shared out, and the products' gradient is written.
            let sums = unsafe { to_bias.part(own.start, own.len()) };
            for row in 0..inputs.rows() {
                // SAFETY: as above.
                let terms = unsafe { to_products.read(row * width + own.start, own.len()) };
                sums.iter_mut().zip(terms).for_each(|(sum, &term)| *sum += term);
            }
        });
        [products, bias, ys]
    }
}
