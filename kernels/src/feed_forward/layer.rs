//! What a layer of the stack does unit by unit, between its products.
//!
//! ```text
//! plain     y = h                      h = f(x W_H + b_H)
//! coupled   y = x + t (h − x)          t = sigmoid(x W_T + b_T)
//! full      y = h t + x c              c = sigmoid(x W_C + b_C)
//! ```

use crate::cpu::chunk::{CHUNK, Chunk};
use crate::cpu::real::{Real, sigmoid};

/// The most products of a layer: of H, T and C.
pub(super) const MOST_GATES: usize = 3;

/// A chunk for h, t and c; those that a layer lacks are unused.
pub(super) type Values<T> = [Chunk<T>; MOST_GATES];

/// How a layer puts together what it computes and what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixing {
    /// The input only passes through the transformation.
    Plain,
    /// What the transform gate does not let through is carried: C = 1 − T (Srivastava et al., 2015).
    Coupled,
    /// The carry gate has weights of its own.
    Full,
}

/// The function f of a layer's transformation H.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// Logistic sigmoid.
    Sigmoid,
}

/// A layer, but for its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// How its input is carried.
    pub mixing: Mixing,
    /// What H is computed with.
    pub activation: Activation,
}

impl Layer {
    /// Calls `work` with this layer as a constant, so that what depends on it is decided once and not a chunk at a time.
    #[inline(always)]
    pub(super) fn constant(self, work: impl Fn(Self)) {
        use Activation::{Relu, Sigmoid, Tanh};
        use Mixing::{Coupled, Full, Plain};
        match (self.mixing, self.activation) {
            (Plain, Relu) => work(Self { mixing: Plain, activation: Relu }),
            (Plain, Tanh) => work(Self { mixing: Plain, activation: Tanh }),
            (Plain, Sigmoid) => work(Self { mixing: Plain, activation: Sigmoid }),
            (Coupled, Relu) => work(Self { mixing: Coupled, activation: Relu }),
            (Coupled, Tanh) => work(Self { mixing: Coupled, activation: Tanh }),
            (Coupled, Sigmoid) => work(Self { mixing: Coupled, activation: Sigmoid }),
            (Full, Relu) => work(Self { mixing: Full, activation: Relu }),
            (Full, Tanh) => work(Self { mixing: Full, activation: Tanh }),
            (Full, Sigmoid) => work(Self { mixing: Full, activation: Sigmoid }),
        }
    }

    /// Products with the input: of H, then of T, then of C.
    #[inline(always)]
    pub fn gates(self) -> usize {
        match self.mixing {
            Mixing::Plain => 1,
            Mixing::Coupled => 2,
            Mixing::Full => 3,
        }
    }

    /// From the products with the bias to h, t, c; gives y.
    #[inline(always)]
    pub(super) fn forward<T: Real, const FUSED: bool>(self, values: &mut Values<T>, x: Chunk<T>) -> Chunk<T> {
        let [h, t, c] = values;
        self.activation.forward::<T, FUSED>(h);
        let mut y = *h;
        match self.mixing {
            Mixing::Plain => {}
            Mixing::Coupled => {
                for i in 0..CHUNK {
                    t[i] = sigmoid::<T, FUSED>(t[i]);
                    y[i] = x[i] + t[i] * (h[i] - x[i]);
                }
            }
            Mixing::Full => {
                for i in 0..CHUNK {
                    t[i] = sigmoid::<T, FUSED>(t[i]);
                    c[i] = sigmoid::<T, FUSED>(c[i]);
                    y[i] = h[i] * t[i] + x[i] * c[i];
                }
            }
        }
        y
    }

    /// From y's gradient, and h, t, c, which become the gradients of their products, to what x gets unit by unit.
    #[inline(always)]
    pub(super) fn backward<T: Real>(self, values: &mut Values<T>, x: Chunk<T>, grad: Chunk<T>) -> Chunk<T> {
        let [h, t, c] = values;
        let mut carried = [T::zero(); CHUNK];
        match self.mixing {
            Mixing::Plain => self.activation.backward(h, grad),
            Mixing::Coupled => {
                let mut h_grad = grad;
                for i in 0..CHUNK {
                    h_grad[i] = grad[i] * t[i];
                    carried[i] = grad[i] * (T::one() - t[i]);
                    t[i] = grad[i] * (h[i] - x[i]) * t[i] * (T::one() - t[i]);
                }
                self.activation.backward(h, h_grad);
            }
            Mixing::Full => {
                let mut h_grad = grad;
                for i in 0..CHUNK {
                    h_grad[i] = grad[i] * t[i];
                    carried[i] = grad[i] * c[i];
                    t[i] = grad[i] * h[i] * t[i] * (T::one() - t[i]);
                    c[i] = grad[i] * x[i] * c[i] * (T::one() - c[i]);
                }
                self.activation.backward(h, h_grad);
            }
        }
        carried
    }
}

impl Activation {
    #[inline(always)]
    pub(super) fn forward<T: Real, const FUSED: bool>(self, z: &mut Chunk<T>) {
        match self {
            // What is not a number stays so.
            Self::Relu => z.iter_mut().for_each(|z| *z = if *z <= T::zero() { T::zero() } else { *z }),
            Self::Tanh => z.iter_mut().for_each(|z| *z = z.fast_tanh::<FUSED>()),
            Self::Sigmoid => z.iter_mut().for_each(|z| *z = sigmoid::<T, FUSED>(*z)),
        }
    }

    /// h becomes the gradient of its product.
    #[inline(always)]
    pub(super) fn backward<T: Real>(self, h: &mut Chunk<T>, grad: Chunk<T>) {
        let both = h.iter_mut().zip(grad);
        match self {
            Self::Relu => both.for_each(|(h, grad)| *h = if *h > T::zero() { grad } else { T::zero() }),
            Self::Tanh => both.for_each(|(h, grad)| *h = grad * (T::one() - *h * *h)),
            Self::Sigmoid => both.for_each(|(h, grad)| *h = grad * *h * (T::one() - *h)),
        }
    }
}
