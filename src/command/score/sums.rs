//! What the tokens of a line or a file add up to.

use crate::data::Piece;
use crate::eval::score::Cost;

/// What the tokens of a line or a file add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) lines: u64,
    pub(super) tokens: usize,
    pub(super) scored: usize,
    pub(super) unknown: u64,
    pub(super) nats: f64,
}

impl Sums {
    pub(super) fn take(&mut self, piece: &Piece, cost: Option<Cost>) {
        self.tokens += usize::from(piece.id.is_some());
        self.unknown += u64::from(!piece.known);
        if let Some(cost) = cost {
            self.scored += 1;
            self.nats += cost.nats;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.tokens += other.tokens;
        self.scored += other.scored;
        self.unknown += other.unknown;
        self.nats += other.nats;
    }

    /// The sum; none if no token has a surprisal.
    pub(super) fn all(&self) -> Option<f64> {
        (self.scored > 0).then_some(self.nats)
    }

    /// The mean over the tokens that have a surprisal.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.scored > 0).then(|| self.nats / self.scored as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_over_the_tokens_that_have_a_surprisal() {
        let piece = Piece { id: Some(0), known: true, span: 0..1 };
        let mut sums = Sums::default();
        for nats in [None, Some(1.0), Some(3.0)] {
            sums.take(&piece, nats.map(|nats| Cost { nats, set_nats: 0.0 }));
        }
        assert_eq!((sums.tokens, sums.all(), sums.mean()), (3, Some(4.0), Some(2.0)));
        assert_eq!((Sums::default().all(), Sums::default().mean()), (None, None));
    }
}
