//! Matrix products on slices, by the `gemm` crate, on all threads.

use super::real::Real;
use gemm::Parallelism;

/// A row-major matrix, or the transpose of one.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a, T> Matrix<'a, T> {
    /// `data` holds `rows × columns` values, row by row.
    pub(super) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a {rows} × {columns} matrix");
        Self { data, rows, columns, transposed: false }
    }

    /// The transpose, nothing moved.
    pub(super) fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }

    fn strides(&self) -> (isize, isize) {
        if self.transposed { (1, self.rows as isize) } else { (self.columns as isize, 1) }
    }
}

/// `c = a b`, or `c += a b` if `accumulate`; `c` is row-major.
pub(super) fn product<T: Real>(c: &mut [T], a: Matrix<'_, T>, b: Matrix<'_, T>, accumulate: bool) {
    assert_eq!(a.columns, b.rows, "inner sizes");
    assert_eq!(c.len(), a.rows * b.columns, "result's size");
    let (a_row, a_column) = a.strides();
    let (b_row, b_column) = b.strides();
    #[expect(
        unsafe_code,
        reason = "the crate's only interface; sizes and strides were checked above and in `new`"
    )]
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c.as_mut_ptr(),
            1,
            b.columns as isize,
            accumulate,
            a.data.as_ptr(),
            a_column,
            a_row,
            b.data.as_ptr(),
            b_column,
            b_row,
            T::one(),
            T::one(),
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Matrix, product};

    #[test]
    fn transposes_and_sums_as_written() {
        let (a, b) = ([1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0f64, 0.0, 2.0, 1.0, 0.0, 3.0]);
        let mut c = [10.0; 4];
        product(&mut c, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), true);
        assert_eq!(c, [1.0 + 4.0 + 10.0, 2.0 + 9.0 + 10.0, 4.0 + 10.0 + 10.0, 5.0 + 18.0 + 10.0]);
        let mut c = [0.0; 4];
        product(&mut c, Matrix::new(&a, 3, 2).t(), Matrix::new(&b, 3, 2), false);
        assert_eq!(c, [1.0 + 6.0, 3.0 + 15.0, 2.0 + 8.0, 4.0 + 18.0]);
    }
}
