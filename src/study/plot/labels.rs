//! Names at the curves' right ends, moved apart where they would cover one another.

/// Positions as near as can be to the wanted ones and in their order, `gap` apart, within `low ..= high` if they fit.
pub(super) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut blocks: Vec<Block> = Vec::new();
    for &label in &order {
        blocks.push(Block { sum: wanted[label], count: 1 });
        while let [.., above, below] = blocks[..]
            && below.top() < above.top() + above.height(gap)
        {
            blocks.truncate(blocks.len() - 2);
            blocks.push(above.join(below, gap));
        }
    }
    let mut positions = vec![0.0; wanted.len()];
    let offsets =
        blocks.iter().flat_map(|block| (0..block.count).map(|index| block.top() + index as f64 * gap));
    for (&label, position) in order.iter().zip(offsets) {
        positions[label] = position;
    }
    keep_within(&mut positions, &order, gap, low, high);
    positions
}

/// Labels that touch: each `gap` below the one before, all as near to their wanted positions as can be.
#[derive(Clone, Copy)]
struct Block {
    /// The sum of the wanted positions, each less its distance from the block's first.
    sum: f64,
    count: usize,
}

impl Block {
    fn top(self) -> f64 {
        self.sum / self.count as f64
    }

    fn height(self, gap: f64) -> f64 {
        self.count as f64 * gap
    }

    fn join(self, below: Self, gap: f64) -> Self {
        let moved = below.sum - below.count as f64 * self.height(gap);
        Self { sum: self.sum + moved, count: self.count + below.count }
    }
}

/// From above, then from below; where all do not fit, they go beyond `low`.
fn keep_within(positions: &mut [f64], order: &[usize], gap: f64, low: f64, high: f64) {
    let mut least = low;
    for &label in order {
        positions[label] = positions[label].max(least);
        least = positions[label] + gap;
    }
    let mut greatest = high;
    for &label in order.iter().rev() {
        positions[label] = positions[label].min(greatest);
        greatest = positions[label] - gap;
    }
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn labels_with_room_stay_where_they_are() {
        assert_eq!(spread(&[50.0, 10.0], 15.0, 0.0, 100.0), [50.0, 10.0]);
    }

    #[test]
    fn labels_that_touch_move_apart_around_their_middle() {
        assert_eq!(spread(&[50.0, 50.0], 10.0, 0.0, 100.0), [45.0, 55.0]);
        assert_eq!(spread(&[50.0, 52.0, 54.0], 10.0, 0.0, 100.0), [42.0, 52.0, 62.0]);
    }

    #[test]
    fn labels_stay_within_the_picture() {
        assert_eq!(spread(&[99.0, 99.0, 100.0], 10.0, 0.0, 100.0), [80.0, 90.0, 100.0]);
        assert_eq!(spread(&[0.0, 0.0], 10.0, 0.0, 100.0), [0.0, 10.0]);
        assert!(spread(&[], 10.0, 0.0, 1.0).is_empty());
    }
}
