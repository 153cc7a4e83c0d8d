//! Gradients of variables, straight from the operations that compute them.
//!
//! Candle adds what an operation returns to zeros that it makes for the purpose: for a weight that is three tensors of its
//! size where one is needed, and a pass over all of them. While [`Gradients::of`] goes back through a loss, the operations
//! of this crate hand a variable's gradient over instead, and a second one is added to the first in place. A table of which
//! some rows were looked up and that had no other part in the loss has the gradients of these rows alone
//! ([`Gradient::Rows`]): nothing of the table's size is made.
//!
//! Who has a use for a variable's gradient before the way back is over is told of it by [`Gradients::watched`].
//!
//! The gradient of a weight over a few tokens is a product of two thin matrices. Who goes over the weight once more anyway
//! can have those from [`Gradients::in_parts`], and a gradient of the weight's size is never written.

use crate::embedding::RowGradient;
use crate::error::Result;
use candle_core::backprop::GradStore;
use candle_core::{Result as CandleResult, Shape, Tensor, TensorId};
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
    /// How often each variable's was handed over.
    counts: Counts,
    watch: Option<Watch>,
}

/// How often a variable's gradient was handed over on the way back through a loss.
pub type Counts = HashMap<TensorId, usize>;

/// Who is told of gradients before all are there.
pub struct Watch {
    /// When a variable's has been handed over so often, it is taken to be complete.
    pub expected: Counts,
    /// Is told of it then.
    pub ready: Ready,
}

/// What is told of a variable's gradient.
pub type Ready = Box<dyn FnMut(TensorId, &Gradient) -> CandleResult<()>>;

/// The gradient of a variable.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// Of every number, in the variable's shape.
    Dense(Tensor),
    /// Of some rows of a table; that of the others is zero.
    Rows(RowGradient),
    /// Of every number, not multiplied out.
    Product(ProductGradient),
}

/// `leftᵀ right`, block by block of a variable, and rows that are added to it.
#[derive(Clone, Debug)]
pub struct ProductGradient {
    /// That of the variable.
    pub shape: Shape,
    /// `(blocks, inner, rows)`, contiguous.
    pub left: Tensor,
    /// `(blocks, inner, columns)`, contiguous.
    pub right: Tensor,
    /// Added, where the variable is a table of which rows were looked up too.
    pub rows: Option<RowGradient>,
}

impl Gradient {
    /// The gradient of every number.
    pub fn dense(self) -> Result<Tensor> {
        match self {
            Self::Dense(gradient) => Ok(gradient),
            Self::Rows(rows) => rows.dense(),
            Self::Product(ProductGradient { shape, left, right, rows }) => {
                let product = left.transpose(1, 2)?.matmul(&right)?.reshape(shape)?;
                Ok(rows.map_or(Ok(product.clone()), |rows| rows.add_to(product))?)
            }
        }
    }

    /// With the columns of the variable's last dimension multiplied by `mask`, `(columns)`.
    pub fn masked(self, mask: &Tensor) -> Result<Self> {
        Ok(match self {
            Self::Product(product) if product.rows.is_none() => {
                let right = product.right.broadcast_mul(mask)?;
                Self::Product(ProductGradient { right, ..product })
            }
            gradient => Self::Dense(gradient.dense()?.broadcast_mul(mask)?),
        })
    }
}

/// The gradients of a loss.
pub struct Gradients {
    store: GradStore,
    handed: HashMap<TensorId, Gradient>,
    counts: Counts,
}

impl Gradients {
    /// Of `loss`, one number. Fails if an operation on the way back does.
    pub fn of(loss: &Tensor) -> Result<Self> {
        Self::collected(loss, Handed::default())
    }

    /// As [`Gradients::of`], where a gradient may be a product.
    pub fn in_parts(loss: &Tensor) -> Result<Self> {
        Self::collected(loss, Handed { in_parts: true, ..Handed::default() })
    }

    /// As [`Gradients::of`]; `watch` is told of gradients as soon as they seem to be complete. Whether they were,
    /// [`Gradients::counts`] says afterwards.
    pub fn watched(loss: &Tensor, watch: Watch) -> Result<Self> {
        Self::collected(loss, Handed { watch: Some(watch), ..Handed::default() })
    }

    fn collected(loss: &Tensor, empty: Handed) -> Result<Self> {
        let before = HANDED.replace(Some(empty));
        let store = loss.backward();
        let handed = HANDED.replace(before).unwrap_or_default();
        let store = store?;
        let mut counts = handed.counts;
        // What candle's own operations add comes at no known time.
        counts.retain(|id, _| store.get_id(*id).is_none());
        Ok(Self { store, handed: handed.gradients, counts })
    }

    /// How often the gradient of each variable was handed over, of those to which nothing else was added.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes the gradient of `variable`, of every number; `None` if it has no part in the loss.
    pub fn remove(&mut self, variable: &Tensor) -> Result<Option<Tensor>> {
        self.remove_as_it_is(variable)?.map(Gradient::dense).transpose()
    }

    /// Takes the gradient of `variable` in the form that the loss gave it; `None` if it has no part in the loss.
    pub fn remove_as_it_is(&mut self, variable: &Tensor) -> Result<Option<Gradient>> {
        Ok(match (self.handed.remove(&variable.id()), self.store.remove(variable)) {
            (Some(handed), Some(stored)) => Some(Gradient::Dense((handed.dense()? + stored)?)),
            (handed, stored) => handed.or(stored.map(Gradient::Dense)),
        })
    }
}

/// What an operation's backward pass returns for `gradient` of `operand`: nothing, if that is a variable and someone
/// collects. An operation that goes back through a loss of its own meanwhile does so by [`Gradients::of`].
pub fn hand_over(operand: &Tensor, gradient: Tensor) -> CandleResult<Option<Tensor>> {
    let collected = collect(operand, |before| {
        Ok(Gradient::Dense(match before {
            None => gradient.clone(),
            Some(before) => (before.dense().map_err(candle_core::Error::wrap)? + &gradient)?,
        }))
    })?;
    Ok(if collected { None } else { Some(gradient) })
}

/// As [`hand_over`], of a gradient that is zero but for `rows`, `(count, width)`, of the table `operand`, by their numbers
/// `ids`, `(count)` of u32; a vector is a table of rows of one number.
pub(crate) fn hand_over_rows(operand: &Tensor, ids: &Tensor, rows: Tensor) -> CandleResult<Option<Tensor>> {
    let these = || RowGradient::new(operand, ids, &rows);
    let collected = collect(operand, |before| {
        Ok(match before {
            None => Gradient::Rows(these()),
            Some(Gradient::Rows(before)) => Gradient::Rows(before.and(ids, &rows)),
            Some(Gradient::Dense(sum)) => Gradient::Dense(these().add_to(sum)?),
            Some(Gradient::Product(product)) => {
                let rows = Some(product.rows.map_or_else(these, |before| before.and(ids, &rows)));
                Gradient::Product(ProductGradient { rows, ..product })
            }
        })
    })?;
    Ok(if collected { None } else { Some(these().add_to(operand.zeros_like()?)?) })
}

/// As [`hand_over`], of `leftᵀ right`, `(blocks, inner, rows)` and `(blocks, inner, columns)`; to be used where
/// [`takes_product`] says so.
pub(crate) fn hand_over_product(operand: &Tensor, left: Tensor, right: Tensor) -> CandleResult<()> {
    let shape = operand.shape().clone();
    let product = Gradient::Product(ProductGradient { shape, left, right, rows: None });
    collect(operand, |before| match before {
        None => Ok(product),
        Some(before) => {
            let sum = product.dense().and_then(|product| Ok((before.dense()? + product)?));
            sum.map(Gradient::Dense).map_err(candle_core::Error::wrap)
        }
    })?;
    Ok(())
}

/// Whether the gradient of `operand` is wanted as a product of `inner` rows each.
pub(crate) fn takes_product(operand: &Tensor, inner: usize) -> bool {
    /// More, and tiles in registers pay for a tensor of the variable's size.
    const MOST: usize = 64;
    let in_parts = HANDED.with_borrow(|handed| handed.as_ref().is_some_and(|handed| handed.in_parts));
    in_parts && inner <= MOST && operand.is_variable() && operand.device().is_cpu()
}

/// Puts what `next` makes of the gradient of `operand` until now in its place, if that is a variable and someone collects;
/// gives whether so.
fn collect(
    operand: &Tensor,
    next: impl FnOnce(Option<Gradient>) -> CandleResult<Gradient>,
) -> CandleResult<bool> {
    let id = operand.id();
    HANDED.with_borrow_mut(|handed| {
        let Some(handed) = handed.as_mut().filter(|_| operand.is_variable()) else { return Ok(false) };
        let sum = next(handed.gradients.remove(&id))?;
        let count = handed.counts.entry(id).or_default();
        *count += 1;
        if let Some(watch) = handed.watch.as_mut().filter(|watch| watch.expected.get(&id) == Some(count)) {
            (watch.ready)(id, &sum)?;
        }
        handed.gradients.insert(id, sum);
        Ok(true)
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
    fn a_table_that_was_only_looked_up_has_the_gradients_of_its_rows_alone() {
        let table = counted(4, 2);
        let bias = Var::from_vec(vec![1.0, 2.0, 3.0, 4.0], 4, &Device::Cpu).unwrap();
        let look_up = |ids: &[u32]| {
            let ids = Tensor::new(ids, &Device::Cpu).unwrap();
            let rows = lookup(&table, &ids, None).unwrap().sqr().unwrap().sum_all().unwrap();
            let numbers = lookup(&bias, &ids, None).unwrap().powf(3.0).unwrap().sum_all().unwrap();
            (rows + numbers).unwrap()
        };
        let loss = (look_up(&[3, 1, 3]) + look_up(&[1])).unwrap();
        let mut found = Gradients::of(&loss).unwrap();
        let store = loss.backward().unwrap();
        for (variable, width) in [(&table, 2), (&bias, 1)] {
            let Gradient::Rows(rows) = found.remove_as_it_is(variable).unwrap().unwrap() else {
                panic!("a gradient of the table's size")
            };
            let wanted = store.get(variable).unwrap().reshape((4, ())).unwrap();
            let (ids, sums) = rows.summed().unwrap();
            assert_eq!((ids.as_slice(), sums.dims()), (&[1u32, 3][..], &[2, width][..]));
            let sums = sums.to_vec2::<f64>().unwrap();
            assert_eq!(sums, [1, 3].map(|row| wanted.get(row).unwrap().to_vec1::<f64>().unwrap()));
            let dense = rows.dense().unwrap();
            assert_eq!(dense.dims(), variable.dims());
            let dense = dense.reshape((4, ())).unwrap().to_vec2::<f64>().unwrap();
            assert_eq!(dense, wanted.to_vec2::<f64>().unwrap());
        }
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
        let take = |loss| Gradients::in_parts(&loss).unwrap().remove_as_it_is(&table).unwrap().unwrap();
        let gradient = take(by_parts(1.0));
        let Gradient::Product(parts) = &gradient else {
            panic!("a tied table's gradient is a product and rows")
        };
        assert!(parts.rows.is_some());
        let mask = Tensor::new(&[1f64, 0.0], &Device::Cpu).unwrap();
        let masked = gradient.clone().masked(&mask).unwrap().dense().unwrap();
        let masked = masked.to_vec2::<f64>().unwrap();
        assert_eq!(gradient.dense().unwrap().to_vec2::<f64>().unwrap(), wanted);
        assert!(masked.iter().zip(&wanted).all(|(found, wanted)| *found == [wanted[0], 0.0]));
        // Used twice, there would be two products: then it is whole.
        let twice = (by_parts(1.0) + by_parts(2.0)).unwrap();
        let Gradient::Dense(found) = take(twice) else { panic!("two products are added up") };
        let wanted: Vec<Vec<f64>> =
            wanted.iter().map(|row| row.iter().map(|value| 3.0 * value).collect()).collect();
        assert_eq!(found.to_vec2::<f64>().unwrap(), wanted);
    }

    #[test]
    fn whoever_watches_is_told_of_a_gradient_when_it_was_handed_over_as_often_as_expected() {
        use super::{Counts, Watch};
        use std::sync::{Arc, Mutex};
        let table = counted(4, 2);
        let weight = counted(2, 2);
        let loss = || {
            let ids = Tensor::new(&[1u32, 3, 1], &Device::Cpu).unwrap();
            let xs = lookup(&table, &ids, None).unwrap();
            let hidden = linear(&xs, &weight, Stored::ByInput, Precision::F64).unwrap();
            linear(&hidden, &table, Stored::ByOutput, Precision::F64)
                .unwrap()
                .sqr()
                .unwrap()
                .sum_all()
                .unwrap()
        };
        let counts = Gradients::of(&loss()).unwrap().counts().clone();
        assert_eq!((counts[&table.id()], counts[&weight.id()]), (2, 1));
        let told = |expected: Counts| {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let sink = seen.clone();
            let ready = move |id, gradient: &Gradient| {
                sink.lock().unwrap().push((id, gradient.clone().dense().unwrap().to_vec2::<f64>().unwrap()));
                Ok(())
            };
            Gradients::watched(&loss(), Watch { expected, ready: Box::new(ready) }).unwrap();
            seen.lock().unwrap().clone()
        };
        let mut whole = Gradients::of(&loss()).unwrap();
        let mut gradient = |of: &Var| whole.remove(of).unwrap().unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(told(counts), [(weight.id(), gradient(&weight)), (table.id(), gradient(&table))]);
        assert_eq!(told(Counts::new()), []);
        // A candle operation's part comes whenever it comes: such a variable has no count.
        let mixed = (loss() + weight.sqr().unwrap().sum_all().unwrap()).unwrap();
        assert!(!Gradients::of(&mixed).unwrap().counts().contains_key(&weight.id()));
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
