//! Which instruction sets there are, and how work is started on the best or on one that is asked for.

use crate::cpu::portable::{Portable, PortableBf16};
use crate::cpu::real::Real;
use crate::cpu::tile::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::cpu::x86::{Avx2, Avx2Bf16, Avx512, Avx512Bf16};
use std::cell::Cell;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust with fused multiply-adds, in software where the processor has none: slow, and in single precision the
    /// same bits as AVX2 and AVX-512. Never chosen but by [`InstructionSet::fused`].
    PortableFused,
    /// Plain Rust; on aarch64 the compiler makes NEON of it.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F; bf16 is widened by AVX2.
    Avx512,
    /// AVX-512F and AVX512-BF16.
    Avx512Bf16,
}

thread_local! {
    static FORCED: Cell<Option<InstructionSet>> = const { Cell::new(None) };
}

impl InstructionSet {
    const ALL: [Self; 5] = [Self::PortableFused, Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// Those that this processor has, the best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| set.is_available()).collect()
    }

    /// The one that kernels started on this thread use.
    pub fn current() -> Self {
        let best = || Self::ALL.into_iter().rev().find(|set| set.is_available()).unwrap_or(Self::Portable);
        FORCED.get().unwrap_or_else(best)
    }

    /// Runs `work` with this set for all kernels that it starts on this thread. Panics if the processor lacks it.
    pub fn force<R>(self, work: impl FnOnce() -> R) -> R {
        assert!(self.is_available(), "this processor has no {self:?}");
        let before = FORCED.replace(Some(self));
        let result = work();
        FORCED.set(before);
        result
    }

    /// The set to compute with where results must not depend on the processor: this one if its multiply-adds are fused.
    ///
    /// In single precision all such sets give the same bits: a product's sum has one accumulator, which runs along the
    /// inner dimension in order, and everything else is the same operations on each element.
    pub fn fused(self) -> Self {
        if self == Self::Portable { Self::PortableFused } else { self }
    }

    /// Whether bf16 products are instructions of this set, not emulated in f32.
    pub fn multiplies_bf16(self) -> bool {
        self == Self::Avx512Bf16
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = || avx2() && is_x86_feature_detected!("avx512f");
        match self {
            Self::PortableFused | Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx512(),
            Self::Avx512Bf16 => avx512() && is_x86_feature_detected!("avx512bf16"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        matches!(self, Self::PortableFused | Self::Portable)
    }
}

/// Work that wants a kernel of element type `T`.
pub(crate) trait WithKernel<T> {
    type Output;
    fn run<K: Kernel<Element = T>>(self) -> Self::Output;
}

/// An element type that has kernels.
pub(crate) trait Computed: Real {
    /// Starts `work` on the current instruction set; `bf16` rounds operands, where the type is not f64.
    fn with_kernel<W: WithKernel<Self>>(bf16: bool, work: W) -> W::Output;
}

impl Computed for f64 {
    fn with_kernel<W: WithKernel<Self>>(_bf16: bool, work: W) -> W::Output {
        work.run::<Portable<f64>>()
    }
}

impl Computed for f32 {
    fn with_kernel<W: WithKernel<Self>>(bf16: bool, work: W) -> W::Output {
        match (InstructionSet::current(), bf16) {
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512Bf16, true) => work.run::<Avx512Bf16>(),
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512 | InstructionSet::Avx512Bf16, false) => work.run::<Avx512>(),
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx2 | InstructionSet::Avx512, true) => work.run::<Avx2Bf16>(),
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx2, false) => work.run::<Avx2>(),
            (_, true) => work.run::<PortableBf16>(),
            (InstructionSet::PortableFused, false) => work.run::<Portable<f32, true>>(),
            (_, false) => work.run::<Portable<f32>>(),
        }
    }
}
