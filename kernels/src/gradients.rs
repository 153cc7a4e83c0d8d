//! Gradients of variables, straight from the operations that compute them.
//!
//! Candle adds what an operation returns to zeros that it makes for the purpose: for a weight that is three tensors of its
//! size where one is needed, and a pass over all of them. While [`Gradients::of`] goes back through a loss, the operations
//! of this crate hand a variable's gradient over instead, and a second one is added to the first in place.
//!
//! The gradient of a weight over a few tokens is a product of two thin matrices. Who goes over the weight once more anyway
//! can have those from [`Gradients::in_parts`], and a gradient of the weight's size is never written.

use crate::embedding::add_rows;
use crate::error::Result;
use candle_core::backprop::GradStore;
use candle_core::{Result as CandleResult, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    /// What has been handed over; none while nobody collects.
    static HANDED: RefCell<Option<Handed>> = const { RefCell::new(None) };
}

/// What operations have handed over.
#[derive(Default)]
struct Handed {
    gradients: HashMap<TensorId, Gradient>,
    /// Whether products stay in parts.
    in_parts: bool,
}

/// The gradients of a loss.
pub struct Gradients {
    store: GradStore,
    handed: HashMap<TensorId, Gradient>,
}

/// The gradient of one variable.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// As large as the variable.
    Whole(Tensor),
    /// The sum of its parts.
    Parts(Parts),
}

/// A gradient that is smaller than its variable; whatever neither part covers is zero.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// A product of two thin matrices, for each block of the variable.
    pub product: Option<Product>,
    /// Rows of a table.
    pub rows: Option<Rows>,
}

/// `leftᵀ right`, block by block.
#[derive(Clone, Debug)]
pub struct Product {
    /// `(blocks, inner, rows)`, contiguous.
    pub left: Tensor,
    /// `(blocks, inner, columns)`, contiguous.
    pub right: Tensor,
}

/// Rows that are added to those of a table, one after the other.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `(count)` of u32.
    pub ids: Tensor,
    /// `(count, width)`, contiguous.
    pub rows: Tensor,
}

impl Gradients {
    /// Of `loss`, one number. Fails if an operation on the way back does.
    pub fn of(loss: &Tensor) -> Result<Self> {
        Self::collected(loss, false)
    }

    /// As [`Gradients::of`], where a gradient may be in parts.
    pub fn in_parts(loss: &Tensor) -> Result<Self> {
        Self::collected(loss, true)
    }

    fn collected(loss: &Tensor, in_parts: bool) -> Result<Self> {
        let before = HANDED.replace(Some(Handed { in_parts, ..Handed::default() }));
        let store = loss.backward();
        let handed = HANDED.replace(before).unwrap_or_default();
        Ok(Self { store: store?, handed: handed.gradients })
    }

    /// Takes the gradient of `variable`, whole; `None` if it has no part in the loss.
    pub fn remove(&mut self, variable: &Tensor) -> Result<Option<Tensor>> {
        self.take(variable)?.map(|gradient| Ok(gradient.whole(variable)?)).transpose()
    }

    /// Takes the gradient of `variable` as it is; `None` if it has no part in the loss.
    pub fn take(&mut self, variable: &Tensor) -> Result<Option<Gradient>> {
        Ok(match (self.handed.remove(&variable.id()), self.store.remove(variable)) {
            (Some(handed), Some(stored)) => Some(Gradient::Whole((handed.whole(variable)? + stored)?)),
            (handed, stored) => handed.or(stored.map(Gradient::Whole)),
        })
    }
}

impl Gradient {
    /// As one tensor, of the shape of `variable`.
    pub fn whole(self, variable: &Tensor) -> CandleResult<Tensor> {
        let Parts { product, rows } = match self {
            Self::Whole(whole) => return Ok(whole),
            Self::Parts(parts) => parts,
        };
        let whole = match product {
            Some(Product { left, right }) => {
                left.transpose(1, 2)?.matmul(&right)?.reshape(variable.shape())?
            }
            None => variable.zeros_like()?,
        };
        match rows {
            Some(Rows { ids, rows }) => add_rows(whole, &ids, &rows).map_err(candle_core::Error::wrap),
            None => Ok(whole),
        }
    }

    /// With some columns of the variable's last dimension multiplied by `mask`, `(columns)`.
    pub fn masked(self, mask: &Tensor) -> CandleResult<Self> {
        Ok(match self {
            Self::Whole(whole) => Self::Whole(whole.broadcast_mul(mask)?),
            Self::Parts(Parts { product, rows }) => {
                let product = product.map(|Product { left, right }| {
                    Ok::<_, candle_core::Error>(Product { left, right: right.broadcast_mul(mask)? })
                });
                let rows = rows.map(|Rows { ids, rows }| {
                    Ok::<_, candle_core::Error>(Rows { ids, rows: rows.broadcast_mul(mask)? })
                });
                Self::Parts(Parts { product: product.transpose()?, rows: rows.transpose()? })
            }
        })
    }

    /// The sum of both, in parts where there is at most one of each kind.
    fn plus(self, other: Self, variable: &Tensor) -> CandleResult<Self> {
        Ok(match (self, other) {
            (Self::Parts(mut parts), Self::Parts(Parts { product: None, rows })) if parts.rows.is_none() => {
                parts.rows = rows;
                Self::Parts(parts)
            }
            (Self::Whole(whole), Self::Parts(Parts { product: None, rows: Some(Rows { ids, rows }) })) => {
                Self::Whole(add_rows(whole, &ids, &rows).map_err(candle_core::Error::wrap)?)
            }
            (first, second) => Self::Whole((first.whole(variable)? + second.whole(variable)?)?),
        })
    }
}

/// What an operation's backward pass returns for `gradient` of `operand`: nothing, if that is a variable and someone
/// collects. An operation that goes back through a loss of its own meanwhile does so by [`Gradients::of`].
pub fn hand_over(operand: &Tensor, gradient: Tensor) -> CandleResult<Option<Tensor>> {
    collect(operand, Gradient::Whole(gradient))
}

/// As [`hand_over`], of a gradient that is zero but for `rows`, `(count, width)`, of the table `operand`, by their numbers
/// `ids`, `(count)` of u32.
pub(crate) fn hand_over_rows(operand: &Tensor, ids: &Tensor, rows: Tensor) -> CandleResult<Option<Tensor>> {
    let rows = Some(Rows { ids: ids.clone(), rows });
    collect(operand, Gradient::Parts(Parts { product: None, rows }))
}

/// As [`hand_over`], of a product; to be used where [`takes_product`] says so.
pub(crate) fn hand_over_product(operand: &Tensor, product: Product) -> CandleResult<Option<Tensor>> {
    collect(operand, Gradient::Parts(Parts { product: Some(product), rows: None }))
}

/// Whether the gradient of `operand` is wanted as a product of `inner` rows each.
pub(crate) fn takes_product(operand: &Tensor, inner: usize) -> bool {
    /// More, and tiles in registers pay for a tensor of the variable's size.
    const MOST: usize = 64;
    let in_parts = HANDED.with_borrow(|handed| handed.as_ref().is_some_and(|handed| handed.in_parts));
    in_parts && inner <= MOST && operand.is_variable() && operand.device().is_cpu()
}

fn collect(operand: &Tensor, gradient: Gradient) -> CandleResult<Option<Tensor>> {
    HANDED.with_borrow_mut(|handed| match handed {
        Some(handed) if operand.is_variable() => {
            let gradient = match handed.gradients.remove(&operand.id()) {
                Some(sum) => sum.plus(gradient, operand)?,
                None if handed.in_parts => gradient,
                None => Gradient::Whole(gradient.whole(operand)?),
            };
            handed.gradients.insert(operand.id(), gradient);
            Ok(None)
        }
        _ => Ok(Some(gradient.whole(operand)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::{Gradient, Gradients};
    use crate::embedding::lookup;
    use crate::linear::{Stored, linear};
    use crate::precision::Precision;
    use candle_core::{Device, Tensor, Var};

    fn counted(rows: usize, columns: usize) -> Var {
        let values: Vec<f64> = (0..rows * columns).map(|i| (i * 7 % 11) as f64 - 5.0).collect();
        Var::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    /// A table that is looked up, multiplied with and added: three gradients, the last from an operation of candle.
    fn loss(table: &Tensor, other: &Tensor) -> Tensor {
        let ids = Tensor::new(&[1u32, 3, 1], &Device::Cpu).unwrap();
        let xs = (lookup(table, &ids, None).unwrap() * other).unwrap();
        let ys = linear(&xs, table, Stored::ByOutput, Precision::F64).unwrap();
        (ys.sqr().unwrap().sum_all().unwrap() + table.powf(3.0).unwrap().sum_all().unwrap()).unwrap()
    }

    #[test]
    fn they_are_those_of_candle_to_the_bit() {
        let table = counted(4, 2);
        let other = counted(3, 2);
        let store = loss(&table, &other).backward().unwrap();
        let mut found = Gradients::of(&loss(&table, &other)).unwrap();
        for variable in [&table, &other] {
            let gradient = found.remove(variable).unwrap().unwrap().to_vec2::<f64>().unwrap();
            assert_eq!(gradient, store.get(variable).unwrap().to_vec2::<f64>().unwrap());
            assert!(found.remove(variable).unwrap().is_none());
        }
        // Sums of integers are exact, so the order of the three does not matter.
    }

    #[test]
    fn in_parts_they_are_the_same() {
        let table = counted(4, 2);
        let other = counted(3, 2);
        let by_parts = |scale: f64| {
            let ids = Tensor::new(&[1u32, 3, 1], &Device::Cpu).unwrap();
            let xs = (lookup(&table, &ids, None).unwrap() * other.as_tensor()).unwrap();
            let ys = linear(&xs, &table, Stored::ByOutput, Precision::F64).unwrap();
            (ys.sqr().unwrap().sum_all().unwrap() * scale).unwrap()
        };
        let wanted = by_parts(1.0).backward().unwrap().get(&table).unwrap().to_vec2::<f64>().unwrap();
        let gradient = Gradients::in_parts(&by_parts(1.0)).unwrap().take(&table).unwrap().unwrap();
        let Gradient::Parts(parts) = &gradient else {
            panic!("a tied table's gradient is a product and rows")
        };
        assert!(parts.product.is_some() && parts.rows.is_some());
        let mask = Tensor::new(&[1f64, 0.0], &Device::Cpu).unwrap();
        let masked = gradient.clone().masked(&mask).unwrap().whole(&table).unwrap();
        let masked = masked.to_vec2::<f64>().unwrap();
        assert_eq!(gradient.whole(&table).unwrap().to_vec2::<f64>().unwrap(), wanted);
        assert!(masked.iter().zip(&wanted).all(|(found, wanted)| *found == [wanted[0], 0.0]));
        // Used twice, there would be two products: then it is whole.
        let twice = (by_parts(1.0) + by_parts(2.0)).unwrap();
        let found = Gradients::in_parts(&twice).unwrap().take(&table).unwrap().unwrap();
        let Gradient::Whole(found) = found else { panic!("two products are added up") };
        let wanted: Vec<Vec<f64>> =
            wanted.iter().map(|row| row.iter().map(|value| 3.0 * value).collect()).collect();
        assert_eq!(found.to_vec2::<f64>().unwrap(), wanted);
    }

    #[test]
    fn an_error_on_the_way_back_leaves_nothing_behind() {
        struct Fails;
        impl candle_core::CustomOp1 for Fails {
            fn name(&self) -> &'static str {
                "fails"
            }
            fn cpu_fwd(
                &self,
                storage: &candle_core::CpuStorage,
                layout: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                Ok((storage.clone(), layout.shape().clone()))
            }
        }
        let table = counted(2, 2);
        assert!(Gradients::of(&table.apply_op1(Fails).unwrap().sum_all().unwrap()).is_err());
        let squared = linear(&table, &table, Stored::ByInput, Precision::F64).unwrap().sum_all().unwrap();
        assert!(squared.backward().unwrap().get(&table).is_some()); // nobody collects any more
    }
}
