//! Gradients of variables, straight from the operations that compute them.
//!
//! Candle adds what an operation returns to zeros that it makes for the purpose: for a weight that is three tensors of its
//! size where one is needed, and a pass over all of them. While [`Gradients::of`] goes back through a loss, the operations
//! of this crate hand a variable's gradient over instead, and a second one is added to the first in place.

use crate::embedding::add_rows;
use crate::error::Result;
use candle_core::backprop::GradStore;
use candle_core::{Result as CandleResult, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    /// What has been handed over; none while nobody collects.
    static HANDED: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// The gradients of a loss.
pub struct Gradients {
    store: GradStore,
    handed: HashMap<TensorId, Tensor>,
}

impl Gradients {
    /// Of `loss`, one number. Fails if an operation on the way back does.
    pub fn of(loss: &Tensor) -> Result<Self> {
        let before = HANDED.replace(Some(HashMap::new()));
        let store = loss.backward();
        let handed = HANDED.replace(before).unwrap_or_default();
        Ok(Self { store: store?, handed })
    }

    /// Takes the gradient of `variable`; `None` if it has no part in the loss.
    pub fn remove(&mut self, variable: &Tensor) -> Result<Option<Tensor>> {
        Ok(match (self.handed.remove(&variable.id()), self.store.remove(variable)) {
            (Some(handed), Some(stored)) => Some((handed + stored)?),
            (handed, stored) => handed.or(stored),
        })
    }
}

/// What an operation's backward pass returns for `gradient` of `operand`: nothing, if that is a variable and someone
/// collects. An operation that goes back through a loss of its own meanwhile does so by [`Gradients::of`].
pub fn hand_over(operand: &Tensor, gradient: Tensor) -> CandleResult<Option<Tensor>> {
    collect(operand, gradient, Ok, |sum, gradient| sum + gradient)
}

/// As [`hand_over`], of a gradient that is zero but for `rows`, `(count, width)`, of the table `operand`, by their numbers
/// `ids`, `(count)` of u32.
pub(crate) fn hand_over_rows(operand: &Tensor, ids: &Tensor, rows: Tensor) -> CandleResult<Option<Tensor>> {
    let add = |table: Tensor, rows: Tensor| add_rows(table, ids, &rows).map_err(candle_core::Error::wrap);
    collect(operand, rows, |rows| add(operand.zeros_like()?, rows), add)
}

/// `whole` makes the first gradient of `part`, `add` adds another to it.
fn collect(
    operand: &Tensor,
    part: Tensor,
    whole: impl FnOnce(Tensor) -> CandleResult<Tensor>,
    add: impl FnOnce(Tensor, Tensor) -> CandleResult<Tensor>,
) -> CandleResult<Option<Tensor>> {
    HANDED.with_borrow_mut(|handed| match handed {
        Some(handed) if operand.is_variable() => {
            let sum = match handed.remove(&operand.id()) {
                Some(sum) => add(sum, part)?,
                None => whole(part)?,
            };
            handed.insert(operand.id(), sum);
            Ok(None)
        }
        _ => Ok(Some(whole(part)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::Gradients;
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
