//! The pass over the weights by a gradient that is never written: the product of two thin matrices, and rows of a table.

use super::{DynamicStep, update};
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::packed::PackedWeights;
use crate::cpu::panels::{View, pack_tile};
use crate::cpu::pool;
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::shared::Shared;
use crate::cpu::thin::{MOST, combine_all};
use crate::cpu::tile::{Kernel, MOST_ROWS, Operands, Sums};
use crate::error::Result;
use crate::gradients::{Gradient, ProductGradient};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result as CandleResult, Tensor};

/// The step by a gradient that is never written: its rows are computed in pieces that stay in the cache.
pub(super) struct FromParts {
    /// `(blocks, inner, rows)` and `(blocks, inner, columns)`.
    product: Option<[Tensor; 2]>,
    /// The numbers of the rows that are added, in rising order, and those rows.
    rows: Option<(Vec<u32>, Tensor)>,
    step: DynamicStep,
}

impl FromParts {
    /// Fails if the gradient is dense.
    pub(super) fn new(gradient: Gradient, step: DynamicStep) -> Result<Self> {
        let (product, rows) = match gradient {
            Gradient::Dense(_) => {
                return Err(candle_core::Error::Msg("a dense gradient has no parts".into()).into());
            }
            Gradient::Rows(rows) => (None, Some(rows)),
            Gradient::Product(ProductGradient { left, right, rows, .. }) => (Some([left, right]), rows),
        };
        Ok(Self { product, rows: rows.map(|rows| rows.summed()).transpose()?, step })
    }
}

impl InplaceOp2 for FromParts {
    fn name(&self) -> &'static str {
        "dynamic-evaluation-from-parts"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        layout: &Layout,
        trained: &CpuStorage,
        trained_layout: &Layout,
    ) -> CandleResult<()> {
        by_float!(trained.dtype(), T => {
            let trained = real::elements::<T>(trained, trained_layout)?;
            let parameter = real::elements_mut::<T>(parameter, layout)?;
            let columns = layout.shape().dims().last().copied().unwrap_or(1);
            PartsOf::of(self, parameter.len() / columns.max(1), columns, |parts| {
                let (start, rms) = trained.split_at(parameter.len());
                let numbers = self.step.numbers();
                T::with_kernel(false, Update { parameter: Shared::new(parameter), start, rms, parts, numbers });
            })
        })
    }
}

/// A gradient's parts, as rows of the variable see them.
struct PartsOf<'a, T> {
    columns: usize,
    /// Rows of the variable.
    rows: usize,
    /// Rows of a block.
    block: usize,
    /// Terms of each sum of the product.
    inner: usize,
    left: &'a [T],
    right: &'a [T],
    /// The numbers of the rows that are added, in rising order.
    added: &'a [u32],
    values: &'a [T],
}

impl<T: Real> PartsOf<'_, T> {
    /// Calls `work` with the parts of a variable of `rows × columns`. Fails if they do not fit it.
    fn of(
        FromParts { product, rows: added, .. }: &FromParts,
        rows: usize,
        columns: usize,
        work: impl FnOnce(&PartsOf<'_, T>),
    ) -> CandleResult<()> {
        let mut parts = PartsOf {
            columns,
            rows,
            block: rows.max(1),
            inner: 0,
            left: &[],
            right: &[],
            added: &[],
            values: &[],
        };
        let nothing = Tensor::zeros(0, T::DTYPE, &Device::Cpu)?;
        let mut operands = [&nothing; 3];
        if let Some([left, right]) = product {
            let (blocks, inner, block) = left.dims3()?;
            if right.dims3()? != (blocks, inner, columns) || blocks * block != rows {
                candle_core::bail!("{left:?} and {right:?} do not make a gradient of {rows} × {columns}");
            }
            parts.block = block.max(1);
            parts.inner = inner;
            operands = [left, right, &nothing];
        }
        if let Some((ids, values)) = added {
            if values.dims2()? != (ids.len(), columns) || ids.iter().any(|&id| id as usize >= rows) {
                candle_core::bail!("{values:?} cannot be added to rows of a table of {rows} × {columns}");
            }
            parts.added = ids;
            operands[2] = values;
        }
        real::with_elements(operands, |[left, right, values]| work(&PartsOf { left, right, values, ..parts }))
    }

    /// The product's part of the gradient of columns `start .. start + grad.len()` of a row, line by line.
    #[inline(always)]
    fn multiply<K: Kernel<Element = T>>(&self, row: usize, start: usize, grad: &mut [T]) {
        let Self { inner, block, .. } = *self;
        let first = row / block * inner;
        let len = grad.len();
        let factor = |k: usize| self.left[(first + k) * block + row % block];
        let line = |k: usize| &self.right[(first + k) * self.columns + start..][..len];
        combine_all::<K>(grad, inner, factor, line, false, 0);
    }

    /// Adds to the gradient of columns `start .. start + grad.len()` of a row what that row of a table has.
    #[inline(always)]
    fn add(&self, row: usize, start: usize, grad: &mut [T]) {
        if let Ok(at) = self.added.binary_search_by_key(&row, |&id| id as usize) {
            let values = &self.values[at * self.columns + start..][..grad.len()];
            grad.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
        }
    }

    /// The lines of the product, packed for tiles; none for few of them, for which tiles do not pay.
    fn packed<K: Kernel<Element = T>>(&self) -> Option<PackedWeights<K>> {
        let Self { columns, inner, .. } = *self;
        let part = |block: usize, panel: usize, _section: usize, half: usize| {
            let lines = View::new(&self.right[block * inner * columns..][..inner * columns], inner, columns);
            let start = (panel * K::columns() + half * K::LANES).min(columns);
            lines.columns(start, K::LANES.min(columns - start))
        };
        let blocks = self.rows / self.block;
        (inner > MOST).then(|| PackedWeights::pack(blocks, columns.div_ceil(K::columns()), &[inner], part))
    }
}

struct Update<'a, T> {
    parameter: Shared<'a, T>,
    start: &'a [T],
    rms: &'a [T],
    parts: &'a PartsOf<'a, T>,
    numbers: [T; 3],
}

/// Columns that are gone over together.
const COLUMNS: usize = 512;

impl<T: Computed> WithKernel<T> for Update<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let PartsOf { columns, rows, block, inner, .. } = *self.parts;
        let packed = self.parts.packed::<K>();
        pool::run(|worker| {
            let most = if packed.is_some() { K::TILES.len() } else { 1 }; // alone, rows are read as they lie
            let mut operands = vec![K::Row::default(); K::steps(inner) * K::TILES.len()];
            let mut grads = [T::zero(); MOST_ROWS * COLUMNS];
            let own = worker.share(rows);
            let mut first = own.start;
            while first < own.end {
                let end = own.end.min(first + most).min((first / block + 1) * block);
                let operands = &mut operands[..K::steps(inner) * (end - first)];
                if packed.is_some() {
                    let left = View::new(
                        &self.parts.left[first / block * inner * block..][..inner * block],
                        inner,
                        block,
                    );
                    pack_tile::<K>(operands, left.columns(first % block, end - first).t());
                }
                for column in (0..columns).step_by(COLUMNS) {
                    let width = COLUMNS.min(columns - column);
                    if let Some(packed) = &packed {
                        multiply::<K>(
                            packed,
                            first / block,
                            column / K::columns(),
                            width,
                            operands,
                            &mut grads,
                        );
                    }
                    for (row, grad) in (first..end).zip(grads.chunks_exact_mut(COLUMNS)) {
                        self.row::<K>(row, column, &mut grad[..width], packed.is_none());
                    }
                }
                first = end;
            }
        });
    }
}

impl<T: Computed> Update<'_, T> {
    /// Some columns of a row; the product's part of their gradient is computed now, or there.
    fn row<K: Kernel<Element = T>>(&self, row: usize, column: usize, grad: &mut [T], now: bool) {
        let at = row * self.parts.columns + column;
        // SAFETY: workers' rows are disjoint.
        let parameter = unsafe { self.parameter.part(at, grad.len()) };
        let trained = [self.start, self.rms].map(|values| &values[at..at + grad.len()]);
        K::vectorized(
            #[inline(always)]
            || {
                if now {
                    self.parts.multiply::<K>(row, column, grad);
                }
                self.parts.add(row, column, grad);
                update(parameter, trained, grad, self.numbers);
            },
        );
    }
}

/// The product of some rows, whose operands are packed, and `width` columns from panel `start` of a block on; a row of
/// `grads` has `COLUMNS`, which are whole panels of every kernel.
fn multiply<K: Kernel>(
    lines: &PackedWeights<K>,
    block: usize,
    start: usize,
    width: usize,
    rows: &[K::Row],
    grads: &mut [K::Element],
) {
    let steps = lines.panel(block, start).len() / K::columns();
    for panel in 0..width.div_ceil(K::columns()) {
        let columns = lines.panel(block, start + panel);
        let operands = Operands {
            rows: rows.as_ptr(),
            panel: columns.as_ptr(),
            steps,
            ahead: columns.as_ptr().cast(),
            advance: 0,
        };
        let rows = rows.len() / steps;
        let grads = &mut grads[panel * K::columns()..(rows - 1) * COLUMNS + (panel + 1) * K::columns()];
        // SAFETY: `with_kernel` chose a kernel that the processor has; the slices are as long as wanted.
        unsafe {
            K::TILES[rows - 1](operands, Sums { out: grads.as_mut_ptr(), stride: COLUMNS, add: false })
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DynamicStep, dynamic};
    use crate::embedding::RowGradient;
    use crate::gradients::{Gradient, ProductGradient};
    use crate::rng::Rng;
    use candle_core::{DType, Device, Tensor, Var};

    fn random(name: &str, shape: &[usize], dtype: DType) -> Tensor {
        let mut rng = Rng::keyed(5, name, 0);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| 2.0 * rng.uniform() - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    /// A variable of so many blocks, rows and columns after a step, by the parts of its gradient and by the whole of it.
    fn both(sizes: [usize; 3], gradient: Gradient, dtype: DType) -> [Tensor; 2] {
        let step = DynamicStep { rate: 0.01, decay: 0.7, epsilon: 0.05 };
        let trained = [random("start", &sizes, dtype), random("rms", &sizes, dtype).abs().unwrap()];
        let trained = Tensor::stack(&trained, 0).unwrap();
        let before = random("parameter", &sizes, dtype);
        let before = if sizes[0] == 1 { before.squeeze(0).unwrap() } else { before };
        let trained = if sizes[0] == 1 { trained.squeeze(1).unwrap() } else { trained };
        let whole = Gradient::Dense(gradient.clone().dense().unwrap());
        [gradient, whole].map(|gradient| {
            let parameter = Var::from_tensor(&before).unwrap();
            dynamic(&parameter, &trained, gradient, step).unwrap();
            parameter.as_detached_tensor()
        })
    }

    fn assert_near([found, wanted]: [Tensor; 2], tolerance: f64, what: &str) {
        let far = (found - wanted).unwrap().abs().unwrap().to_dtype(DType::F64).unwrap();
        let far = far.flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
        assert!(far < tolerance, "{what}: {far}");
    }

    #[test]
    fn parts_of_a_gradient_move_weights_as_the_whole_does() {
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-5)] {
            for inner in [1, 5, 8, 20, 61] {
                for sizes in [[1, 37, 2050], [3, 19, 45], [1, 1, 3]] {
                    let [blocks, rows_of, columns] = sizes;
                    let product = |rows| {
                        Gradient::Product(ProductGradient {
                            shape: if blocks == 1 {
                                (rows_of, columns).into()
                            } else {
                                sizes.to_vec().into()
                            },
                            left: random("left", &[blocks, inner, rows_of], dtype),
                            right: random("right", &[blocks, inner, columns], dtype),
                            rows,
                        })
                    };
                    let what = format!("{dtype:?} {sizes:?} {inner}");
                    assert_near(both(sizes, product(None), dtype), tolerance, &what);
                    if blocks > 1 {
                        continue; // a table has one
                    }
                    let last = rows_of as u32 - 1;
                    let ids = Tensor::new(&[last, 0, last], &Device::Cpu).unwrap();
                    let table = random("table", &[rows_of, columns], dtype);
                    let rows = RowGradient::new(&table, &ids, &random("rows", &[3, columns], dtype));
                    assert_near(both(sizes, product(Some(rows.clone())), dtype), tolerance, &what);
                    assert_near(both(sizes, Gradient::Rows(rows), dtype), tolerance, &what);
                }
            }
        }
    }

    #[test]
    fn parts_of_another_size_are_an_error() {
        let parameter = Var::from_tensor(&random("parameter", &[4, 3], DType::F32)).unwrap();
        let trained = random("trained", &[2, 4, 3], DType::F32);
        let step = DynamicStep { rate: 0.01, decay: 0.7, epsilon: 0.05 };
        let product = ProductGradient {
            shape: (4, 3).into(),
            left: random("left", &[1, 2, 4], DType::F32),
            right: random("right", &[1, 2, 5], DType::F32),
            rows: None,
        };
        let larger = random("larger", &[5, 3], DType::F32);
        let ids = Tensor::new(&[4u32], &Device::Cpu).unwrap();
        let rows = RowGradient::new(&larger, &ids, &random("rows", &[1, 3], DType::F32));
        for gradient in [Gradient::Product(product), Gradient::Rows(rows)] {
            assert!(dynamic(&parameter, &trained, gradient, step).is_err());
        }
    }
}
