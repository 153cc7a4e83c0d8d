//! Sequences of like length side by side, so that little of a batch is padding.

use super::packing::shuffle;
use rhn_kernels::rng::Rng;

/// Batches whose sequences are sorted by length together: the more, the less padding and the less chance.
const POOL: usize = 64;

/// The batches of an epoch: `rows` numbers of sequences each, drawn from `seed` and `epoch`. The sequences are shuffled,
/// sorted by length within pools of some batches, and the batches shuffled again; those that fill no batch are left out of
/// this epoch.
pub(crate) fn drawn_batches(lengths: &[usize], rows: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    let mut rng = Rng::keyed(seed, "lengths.order", epoch);
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    shuffle(&mut order, &mut rng);
    order.truncate(lengths.len() / rows * rows);
    for pool in order.chunks_mut(POOL * rows) {
        pool.sort_by_key(|&number| lengths[number as usize]);
    }
    let mut batches: Vec<Vec<u32>> = order.chunks(rows).map(<[u32]>::to_vec).collect();
    shuffle(&mut batches, &mut rng);
    batches
}

/// All sequences, the longest first, in batches of at most `rows` of them and at most `tokens` steps in all, the padding
/// counted, but for a sequence that is longer by itself.
pub(crate) fn sorted_batches(lengths: &[usize], rows: usize, tokens: usize) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.sort_by_key(|&number| std::cmp::Reverse(lengths[number as usize]));
    let mut batches = Vec::new();
    let mut left = order.as_slice();
    while let Some(&longest) = left.first() {
        let fit = tokens / lengths[longest as usize].max(1);
        let (batch, rest) = left.split_at(fit.min(rows).clamp(1, left.len()));
        batches.push(batch.to_vec());
        left = rest;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths() -> Vec<usize> {
        (0..1003).map(|number| 1 + number * 37 % 50).collect()
    }

    #[test]
    fn an_epoch_has_each_sequence_at_most_once_in_an_order_of_its_own() {
        let batches = drawn_batches(&lengths(), 10, 1, 0);
        assert_eq!(batches.len(), 100);
        let mut all = batches.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1000);
        assert_eq!(batches, drawn_batches(&lengths(), 10, 1, 0));
        assert!(
            batches != drawn_batches(&lengths(), 10, 1, 1) && batches != drawn_batches(&lengths(), 10, 2, 0)
        );
    }

    #[test]
    fn sequences_of_a_batch_are_of_like_length() {
        let lengths = lengths();
        for batch in drawn_batches(&lengths, 10, 1, 0) {
            let of_batch = batch.iter().map(|&number| lengths[number as usize]);
            // Of 640 (360) sequences of 50 lengths there are about 13 (7) of each.
            assert!(of_batch.clone().max().unwrap() - of_batch.min().unwrap() <= 5, "{batch:?}");
        }
    }

    #[test]
    fn sorted_batches_have_no_more_steps_than_asked_for() {
        let found = sorted_batches(&[3, 1, 9, 2, 2, 0], 2, 6);
        assert_eq!(found, [vec![2], vec![0, 3], vec![4, 1], vec![5]]);
        assert!(sorted_batches(&[], 2, 6).is_empty());
    }
}
