//! The numbers that a model computes with.

use candle_core::DType;

/// The numbers that a model computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Double precision, to rule out rounding.
    F64,
    /// Operands of the products rounded to bfloat16; weights, sums and everything else in single precision.
    Bf16,
    /// Operands of the products rounded to 10 bits of mantissa by a GPU's tensor cores; all else as [`Self::F32`].
    Tf32,
}

impl Precision {
    /// The element type of the tensors.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Bf16 | Self::Tf32 => DType::F32,
            Self::F64 => DType::F64,
        }
    }

    /// The name in `--precision` and in a training state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
        }
    }

    /// Whether operands of products are rounded to bfloat16.
    pub fn rounds(self) -> bool {
        self == Self::Bf16
    }
}

impl From<DType> for Precision {
    /// Full precision in this element type.
    fn from(dtype: DType) -> Self {
        if dtype == DType::F64 { Self::F64 } else { Self::F32 }
    }
}
