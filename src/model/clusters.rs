//! Where the vocabulary of an adaptive softmax, or of an adaptive embedding, is cut into clusters of falling frequency.

use crate::error::{Error, Result};

/// The settings of an adaptive softmax or embedding for a vocabulary that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveShape {
    /// The first word of each cluster behind the first.
    pub cutoffs: Vec<usize>,
    /// What the vectors of each further cluster are smaller by.
    pub div_value: f64,
    /// Whether the head of a softmax has biases.
    pub head_bias: bool,
}

impl AdaptiveShape {
    /// Clusters that a softmax has at most.
    const MOST: usize = 64;

    /// At about 2, 10 and 40 per cent of the vocabulary, as far as these are different words.
    pub fn default_cutoffs(vocabulary: usize) -> Vec<usize> {
        let mut cutoffs =
            [vocabulary / 50, vocabulary / 10, vocabulary * 2 / 5].map(|cut| cut.max(1)).to_vec();
        cutoffs.dedup();
        cutoffs.retain(|&cut| cut < vocabulary);
        cutoffs
    }

    /// Numbers of a vector of tail `i`, from 0: ⌊hidden / div_value^(i+1)⌋.
    pub fn tail_width(&self, hidden: usize, i: usize) -> usize {
        (hidden as f64 / self.div_value.powi(i as i32 + 1)) as usize
    }

    /// Refuses cut-offs that do not rise within the vocabulary, and a tail whose vectors would have no number.
    pub(super) fn validate(&self, part: &str, hidden: usize, vocabulary: usize) -> Result<()> {
        let wrong = |what: String| Err(Error::config(what));
        let Self { cutoffs, div_value, .. } = self;
        let rises = cutoffs.windows(2).all(|pair| pair[0] < pair[1]);
        let are_inside = cutoffs.iter().all(|&cut| (1..vocabulary).contains(&cut));
        if cutoffs.is_empty() || cutoffs.len() > Self::MOST || !rises || !are_inside {
            return wrong(format!(
                "{part}.cutoffs is {cutoffs:?}, wanted 1 to {} numbers that rise, each from 1 to {}: the vocabulary has \
                 {vocabulary} tokens",
                Self::MOST,
                vocabulary - 1
            ));
        }
        if !(*div_value >= 1.0 && div_value.is_finite()) {
            return wrong(format!("{part}.div_value is {div_value}, wanted a number of 1 or more"));
        }
        match (0..cutoffs.len()).find(|&i| self.tail_width(hidden, i) == 0) {
            None => Ok(()),
            Some(i) => wrong(format!(
                "{part}.div_value is {div_value}: the vectors of tail {i} would have {hidden} / {div_value}^{} numbers, which \
                 is less than 1; wanted a smaller div_value or fewer cutoffs",
                i + 1
            )),
        }
    }
}

/// The clusters of a vocabulary.
#[derive(Clone, Debug)]
pub(super) struct Clusters {
    /// The cut-offs and the vocabulary's size.
    ends: Vec<usize>,
}

/// The words of a cluster among some: their places, and their numbers within it.
#[derive(Clone, Default)]
pub(super) struct Members {
    pub(super) places: Vec<u32>,
    pub(super) ids: Vec<u32>,
}

/// What each part of the softmax has to predict.
pub(super) struct Split {
    /// Of each row: a word of the first cluster, or the cluster.
    pub(super) head: Vec<u32>,
    /// The rows whose target is in each tail, and which of its words.
    pub(super) tails: Vec<Members>,
}

impl Clusters {
    pub(super) fn new(cutoffs: &[usize], vocabulary: usize) -> Self {
        Self { ends: [cutoffs, &[vocabulary]].concat() }
    }

    pub(super) fn vocabulary(&self) -> usize {
        *self.ends.last().expect("the vocabulary ends the last cluster")
    }

    /// Words of the first cluster.
    pub(super) fn first(&self) -> usize {
        self.ends[0]
    }

    /// Words of the first cluster and the other clusters.
    pub(super) fn head_size(&self) -> usize {
        self.first() + self.ends.len() - 1
    }

    /// Words of each tail.
    pub(super) fn tail_sizes(&self) -> impl Iterator<Item = usize> {
        self.ends.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// Words of each cluster.
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.first()).chain(self.tail_sizes())
    }

    /// The words of each cluster. Fails if one is outside the vocabulary.
    pub(super) fn members(&self, words: &[u32]) -> Result<Vec<Members>> {
        let mut clusters = vec![Members::default(); self.ends.len()];
        for (place, &word) in (0..).zip(words) {
            let cluster = self.ends.partition_point(|&end| end <= word as usize);
            let Some(members) = clusters.get_mut(cluster) else {
                let what = format!("word {word} is not below the vocabulary's size {}", self.vocabulary());
                return Err(Error::Tensor(candle_core::Error::Msg(what)));
            };
            let start = if cluster == 0 { 0 } else { self.ends[cluster - 1] as u32 };
            members.places.push(place);
            members.ids.push(word - start);
        }
        Ok(clusters)
    }

    /// What the head and the tails have to predict for these targets. Fails if one is outside the vocabulary.
    pub(super) fn split(&self, targets: &[u32]) -> Result<Split> {
        let mut tails = self.members(targets)?;
        let first = tails.remove(0);
        let mut head = vec![0; targets.len()];
        first.places.iter().zip(&first.ids).for_each(|(&row, &word)| head[row as usize] = word);
        for (tail, members) in (self.first() as u32..).zip(&tails) {
            members.places.iter().for_each(|&row| head[row as usize] = tail);
        }
        Ok(Split { head, tails })
    }

    /// Multiplications a token where words are as frequent as Zipf's law has them, P(k) ~ ln((k + 2) / (k + 1)).
    pub(super) fn expected_cost(&self, hidden: usize, width: impl Fn(usize) -> usize) -> u64 {
        let log = |end: usize| (end as f64).ln_1p();
        let share = |pair: &[usize]| (log(pair[1]) - log(pair[0])) / log(self.vocabulary());
        let tail =
            |(i, pair): (usize, &[usize])| share(pair) * (width(i) * (hidden + pair[1] - pair[0])) as f64;
        let tails: f64 = self.ends.windows(2).enumerate().map(tail).sum();
        (self.head_size() * hidden) as u64 + tails.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{AdaptiveShape, Clusters};

    #[test]
    fn targets_go_to_the_head_and_to_the_tail_that_has_them() {
        let split = Clusters::new(&[3, 5], 9).split(&[0, 2, 3, 4, 5, 8, 1]).unwrap();
        assert_eq!(split.head, [0, 2, 3, 3, 4, 4, 1]); // 3 and 4 are the clusters
        assert_eq!(
            (split.tails[0].places.as_slice(), split.tails[0].ids.as_slice()),
            (&[2, 3][..], &[0, 1][..])
        );
        assert_eq!(
            (split.tails[1].places.as_slice(), split.tails[1].ids.as_slice()),
            (&[4, 5][..], &[0, 3][..])
        );
        assert!(Clusters::new(&[3, 5], 9).split(&[9]).is_err());
    }

    #[test]
    fn cutoffs_are_at_2_10_and_40_per_cent_and_different_even_in_a_small_vocabulary() {
        assert_eq!(AdaptiveShape::default_cutoffs(267_735), [5_354, 26_773, 107_094]);
        assert_eq!(AdaptiveShape::default_cutoffs(10), [1, 4]);
        assert_eq!(AdaptiveShape::default_cutoffs(2), [1]);
    }

    #[test]
    fn the_cost_is_that_of_the_head_and_of_each_tail_as_often_as_it_is_needed() {
        // The tail of 7 words has ln(8 / 2) of ln 8, which is two thirds: of 3 · (6 + 6) multiplications.
        assert_eq!(Clusters::new(&[1], 7).expected_cost(6, |_| 3), 2 * 6 + 24);
    }
}
