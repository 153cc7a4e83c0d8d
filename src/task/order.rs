//! The order in which an epoch takes its items.

use rhn_kernels::rng::Rng;

/// The numbers below `count` in an order drawn from `seed` for `purpose` and `epoch` (Fisher and Yates).
pub(super) fn shuffled(count: usize, purpose: &str, seed: u64, epoch: u64) -> Vec<u32> {
    let mut rng = Rng::keyed(seed, purpose, epoch);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        let other = (rng.uniform() * (last + 1) as f64) as usize;
        order.swap(last, other.min(last));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::shuffled;

    #[test]
    fn an_epoch_has_every_item_once_in_an_order_of_its_own() {
        let of = |seed, epoch| shuffled(1000, "images.order", seed, epoch);
        let first = of(1, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        assert_eq!(first, of(1, 0));
        assert!(first != of(1, 1) && first != of(2, 0));
        let fixed = first.iter().zip(0..).filter(|(a, b)| *a == b).count();
        assert!(fixed < 10, "{fixed} items kept their position"); // one on average
    }
}
