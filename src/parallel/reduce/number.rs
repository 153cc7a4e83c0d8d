//! The numbers that gradients are made of, as ranks exchange them.

use crate::parallel::world::Numbers;
use candle_core::WithDType;

/// A type of numbers that are summed.
pub(super) trait Summable: WithDType + Default {
    fn numbers(numbers: Vec<Self>) -> Numbers;
    fn of(numbers: Numbers) -> Vec<Self>;
    fn write(self, bytes: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! summable {
    ($type:ty, $kind:ident) => {
        impl Summable for $type {
            fn numbers(numbers: Vec<Self>) -> Numbers {
                Numbers::$kind(numbers)
            }

            fn of(numbers: Numbers) -> Vec<Self> {
                match numbers {
                    Numbers::$kind(numbers) => numbers,
                    _ => unreachable!("sums have the type of their numbers"),
                }
            }

            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("the size of a number"))
            }
        }
    };
}

summable!(f32, F32);
summable!(f64, F64);
