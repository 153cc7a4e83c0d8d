//! The order in which an epoch sees its items, and which of them are seen together.

use rhn_kernels::rng::Rng;

/// The numbers below `count` in an order drawn from `seed` for `epoch` (Fisher and Yates); `purpose` names the draw.
pub(super) fn shuffled(count: usize, seed: u64, purpose: &str, epoch: u64) -> Vec<u32> {
    let mut rng = Rng::keyed(seed, purpose, epoch);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        let other = (rng.uniform() * (last + 1) as f64) as usize;
        order.swap(last, other.min(last));
    }
    order
}

/// Batches of `size` items of similar length, in a drawn order. Those of one length are put together anew each epoch; the
/// items that fill no batch are others each epoch, whatever their length.
pub(super) fn batches(lengths: &[usize], size: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    let mut order = shuffled(lengths.len(), seed, "sentences.order", epoch);
    order.truncate(order.len() / size * size);
    order.sort_by_key(|&number| lengths[number as usize]); // a stable sort: the drawn order stays within a length
    let batches: Vec<&[u32]> = order.chunks(size).collect();
    let order = shuffled(batches.len(), seed, "sentences.batches", epoch);
    order.into_iter().map(|batch| batches[batch as usize].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::{batches, shuffled};

    #[test]
    fn an_epoch_sees_every_item_once_in_an_order_of_its_own() {
        let first = shuffled(1000, 1, "order", 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        assert_eq!(first, shuffled(1000, 1, "order", 0));
        let others = [(1, "order", 1), (2, "order", 0), (1, "other", 0)];
        assert!(others.iter().all(|&(seed, purpose, epoch)| first != shuffled(1000, seed, purpose, epoch)));
        let fixed = first.iter().zip(0..).filter(|(a, b)| *a == b).count();
        assert!(fixed < 10, "{fixed} items kept their position"); // one on average
    }

    #[test]
    fn batches_have_items_of_similar_length_in_an_order_of_its_own_each_epoch() {
        let lengths: Vec<usize> = (0..103).map(|number| number * 37 % 11).collect();
        let first = batches(&lengths, 10, 1, 0);
        assert_eq!(first.len(), 10); // three items are left out
        let mut seen = first.concat();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 100);
        for batch in &first {
            let of_batch = batch.iter().map(|&number| lengths[number as usize]);
            assert!(of_batch.clone().max().unwrap() - of_batch.min().unwrap() <= 2, "{batch:?}"); // about nine of each length
        }
        assert_eq!(first, batches(&lengths, 10, 1, 0));
        assert!(first != batches(&lengths, 10, 1, 1) && first != batches(&lengths, 10, 2, 0));
        let shortest: Vec<usize> = first.iter().map(|batch| lengths[batch[0] as usize]).collect();
        assert!(!shortest.is_sorted());
    }
}
