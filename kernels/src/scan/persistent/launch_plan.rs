//! How the persistent kernels of the RHN recurrence are launched on a GPU, and whether a window fits its chip.
//!
//! Pure arithmetic, so that it is tested without a GPU; `rhn_persistent.cuh` says what is where. A block
//! owns `UNITS` hidden units of every sublayer and stays on a multiprocessor of its own, so the weights must fit the
//! registers and the shared memory of as many multiprocessors as there are blocks.

/// Hidden units of a block.
const UNITS: usize = 8;
/// Inputs of a product that a warp multiplies at once.
const SPAN: usize = 32;
/// Spans of a warp.
const WARP_SPANS: usize = 2;
/// Batch rows in a tile of a product.
const TILE: usize = 16;
/// Threads of a warp.
const WARP: usize = 32;
/// The kernels' launch bound: with it the compiler gives a thread at most [`REGISTERS`].
const MOST_THREADS: usize = 512;
/// Registers of a thread, at most.
const REGISTERS: usize = 128;
/// Bytes of an f32.
const FLOAT: usize = 4;

/// A row's length in the recurrence's buffers: the hidden units, padded to whole spans.
pub const fn stride(hidden: usize) -> usize {
    hidden.next_multiple_of(SPAN)
}

/// What a GPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Shared memory that one block can ask for, in bytes.
    pub shared_bytes: usize,
    /// Registers of a multiprocessor.
    pub registers: usize,
}

/// Which way through a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first state to the outputs.
    Forward,
    /// From the outputs' gradients to those of the pre-activations.
    Backward,
}

impl Direction {
    /// Sublayers whose weights the kernel keeps in registers.
    const fn held(self) -> usize {
        match self {
            Self::Forward => 3,
            Self::Backward => 2,
        }
    }

    /// Sums of a batch row that a block shares between its warps: of H and T forward, of the state backward.
    const fn sums(self) -> usize {
        match self {
            Self::Forward => 2 * UNITS,
            Self::Backward => UNITS,
        }
    }
}

/// The sizes of a window on which a launch depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Batch rows.
    pub batch: usize,
    /// Highway sublayers of a time step.
    pub depth: usize,
    /// Hidden units.
    pub hidden: usize,
}

/// A cooperative launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistent {
    /// Blocks, one a multiprocessor and all at once.
    pub blocks: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// Tiles of batch rows that a pass over the batch takes: 1 or 2, which names the kernel.
    pub tiles: usize,
}

impl Persistent {
    /// The launch for one direction; `None` if the window does not fit the card.
    pub fn plan(shape: Shape, direction: Direction, card: Card) -> Option<Self> {
        let plan = Self::wanted(shape, direction);
        let fits = plan.blocks <= card.multiprocessors
            && plan.threads <= MOST_THREADS
            && plan.threads * REGISTERS <= card.registers
            && plan.shared_bytes <= card.shared_bytes;
        fits.then_some(plan)
    }

    /// The launch for one direction on a card that has what it takes.
    pub fn wanted(shape: Shape, direction: Direction) -> Self {
        let warps = (stride(shape.hidden) / SPAN).div_ceil(WARP_SPANS);
        let tiles = if shape.batch > TILE { 2 } else { 1 };
        Self {
            blocks: shape.hidden.div_ceil(UNITS),
            threads: warps * WARP,
            shared_bytes: shared_bytes(shape, direction, warps, tiles),
            tiles,
        }
    }
}

/// The size of what `shared_parts` of the kernels' header lays out.
fn shared_bytes(shape: Shape, direction: Direction, warps: usize, tiles: usize) -> usize {
    let Shape { batch, depth, hidden } = shape;
    let weights = depth.saturating_sub(direction.held()) * stride(hidden) * 2 * UNITS * 2; // bf16
    let sums = warps * batch.min(tiles * TILE) * direction.sums();
    let carried_and_mask = 2 * batch * UNITS;
    let bias = if direction == Direction::Forward { depth * 2 * UNITS } else { 0 };
    weights + (sums + carried_and_mask + bias) * FLOAT
}

#[cfg(test)]
mod tests {
    use super::{Card, Direction, Persistent, Shape, stride};

    const H100: Card = Card { multiprocessors: 132, shared_bytes: 227 << 10, registers: 65536 };
    const A100: Card = Card { multiprocessors: 108, shared_bytes: 163 << 10, registers: 65536 };

    fn shape(batch: usize, depth: usize, hidden: usize) -> Shape {
        Shape { batch, depth, hidden }
    }

    fn fits(batch: usize, depth: usize, hidden: usize, card: Card) -> bool {
        let plan = |direction| Persistent::plan(shape(batch, depth, hidden), direction, card);
        plan(Direction::Forward).is_some() && plan(Direction::Backward).is_some()
    }

    #[test]
    fn rows_are_padded_to_whole_spans() {
        assert_eq!([1, 7, 32, 130, 830, 1500].map(stride), [32, 32, 32, 160, 832, 1504]);
    }

    #[test]
    fn ten_sublayers_of_830_fit_an_h100() {
        let plan = |direction| Persistent::plan(shape(20, 10, 830), direction, H100).unwrap();
        // 830 = 104 · 8 - 2 units; 832 = 26 · 32 inputs, 13 warps; a sublayer's weights of a block: 832 · 16 · 2 bytes.
        let sublayer = 832 * 16 * 2;
        let forward = 7 * sublayer + 4 * (13 * 20 * 16 + 2 * 20 * 8 + 10 * 16);
        let backward = 8 * sublayer + 4 * (13 * 20 * 8 + 2 * 20 * 8);
        assert_eq!((forward, backward), (204_928, 222_592));
        for (direction, shared_bytes) in [(Direction::Forward, forward), (Direction::Backward, backward)] {
            assert_eq!(plan(direction), Persistent { blocks: 104, threads: 416, shared_bytes, tiles: 2 });
        }
    }

    #[test]
    fn the_papers_depths_fit_an_h100_up_to_1024_units() {
        for (depth, hidden) in [(5, 1000), (6, 960), (7, 920), (8, 890), (9, 860), (10, 830), (1, 1024)] {
            assert!(fits(20, depth, hidden, H100), "{depth} × {hidden}");
        }
        for (depth, hidden) in [(1, 1275), (2, 1180), (3, 1110), (4, 1050), (1, 1025)] {
            assert!(!fits(20, depth, hidden, H100), "{depth} × {hidden}: more than 512 threads");
        }
    }

    #[test]
    fn what_is_too_large_for_the_chip_does_not_fit() {
        assert!(!fits(128, 10, 1500, H100)); // enwik8
        assert!(!fits(20, 11, 830, H100));
        assert!(!fits(20, 10, 830, A100)); // 163 KiB a multiprocessor
        assert!(!fits(1, 1, 830, Card { multiprocessors: 103, ..H100 }));
        assert!(!fits(1, 1, 830, Card { registers: 416 * 128 - 1, ..H100 }));
    }

    #[test]
    fn a_large_batch_runs_in_passes_until_its_carry_fills_the_memory() {
        let plan = |batch| Persistent::wanted(shape(batch, 1, 7), Direction::Forward);
        assert_eq!([1, 16, 17, 33, 128].map(|batch| plan(batch).tiles), [1, 1, 2, 2, 2]);
        assert_eq!(plan(128).shared_bytes - plan(64).shared_bytes, 64 * 2 * 8 * 4);
        assert!(fits(33, 10, 830, H100) && !fits(200, 10, 830, H100));
    }
}
