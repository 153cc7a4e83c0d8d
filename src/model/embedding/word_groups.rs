//! Words of about the same length side by side, for a recurrent layer over their characters.

/// Words that are read at the same time, a character a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WordGroup {
    /// Which words, by their number among all.
    pub(super) words: Vec<usize>,
    /// Characters of the longest.
    pub(super) time: usize,
    /// `(time, words)`: the characters, and the blank behind those of a word that is shorter.
    pub(super) forward: Vec<u32>,
    /// The same of each word read from its end.
    pub(super) backward: Vec<u32>,
    /// The row of each word's last character in `(time · words)`; none if they are those of the last step.
    pub(super) last: Option<Vec<u32>>,
}

/// Words by their characters, padded with the blank, 0, in groups of at least `least` words unless the last one has fewer;
/// words of different lengths are in one group only where that is needed for it.
pub(super) fn word_groups(words: &[Vec<u32>], least: usize) -> Vec<WordGroup> {
    let words: Vec<&[u32]> = words.iter().map(|word| within(word)).collect();
    let mut order: Vec<usize> = (0..words.len()).collect();
    order.sort_by_key(|&word| words[word].len());
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for word in order {
        let is_alike = |last: usize| words[last].len() == words[word].len();
        match groups.last_mut() {
            Some(group) if group.len() < least || group.last().is_some_and(|&last| is_alike(last)) => {
                group.push(word);
            }
            _ => groups.push(vec![word]),
        }
    }
    groups.into_iter().map(|group| WordGroup::new(group, &words)).collect()
}

/// A word without the blanks behind it; something of it is left even of blanks alone, which no vocabulary is spelled with.
fn within(word: &[u32]) -> &[u32] {
    let length = word.iter().rposition(|&character| character != 0).map_or(1, |last| last + 1);
    word.get(..length).unwrap_or(word)
}

impl WordGroup {
    fn new(group: Vec<usize>, words: &[&[u32]]) -> Self {
        let time = group.iter().map(|&word| words[word].len()).max().unwrap_or(0);
        let steps = |at: fn(&[u32], usize) -> Option<u32>| {
            let of_step = |step| group.iter().map(move |&word| at(words[word], step).unwrap_or(0));
            (0..time).flat_map(of_step).collect()
        };
        let forward = steps(|word, step| word.get(step).copied());
        let backward = steps(|word, step| word.iter().rev().nth(step).copied());
        let is_uniform = group.iter().all(|&word| words[word].len() == time);
        let row = |(column, &word): (usize, &usize)| ((words[word].len() - 1) * group.len() + column) as u32;
        let last = (!is_uniform).then(|| group.iter().enumerate().map(row).collect());
        Self { words: group, time, forward, backward, last }
    }
}

#[cfg(test)]
mod tests {
    use super::{WordGroup, word_groups};

    #[test]
    fn words_of_one_length_are_read_without_a_blank() {
        let words = [vec![1, 5, 2, 0], vec![1, 5, 6, 2], vec![1, 7, 2, 0]];
        let short = WordGroup {
            words: vec![0, 2],
            time: 3,
            forward: vec![1, 1, 5, 7, 2, 2],
            backward: vec![2, 2, 5, 7, 1, 1],
            last: None,
        };
        let long = WordGroup {
            words: vec![1],
            time: 4,
            forward: vec![1, 5, 6, 2],
            backward: vec![2, 6, 5, 1],
            last: None,
        };
        assert_eq!(word_groups(&words, 1), [short, long]);
    }

    #[test]
    fn a_group_that_would_be_small_has_longer_words_too() {
        let words = [vec![1, 5, 2, 0], vec![1, 5, 6, 2]];
        let both = WordGroup {
            words: vec![0, 1],
            time: 4,
            forward: vec![1, 1, 5, 5, 2, 6, 0, 2],
            backward: vec![2, 2, 5, 6, 1, 5, 0, 1],
            last: Some(vec![4, 7]),
        };
        assert_eq!(word_groups(&words, 2), [both]);
    }

    #[test]
    fn each_word_is_in_one_group_of_the_wanted_size() {
        let words: Vec<Vec<u32>> = (0..50).map(|word| vec![1; 1 + word * 7 % 11]).collect();
        let groups = word_groups(&words, 8);
        let mut seen: Vec<usize> = groups.iter().flat_map(|group| group.words.clone()).collect();
        seen.sort();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert!(groups[..groups.len() - 1].iter().all(|group| group.words.len() >= 8));
    }

    #[test]
    fn blanks_alone_are_one_character() {
        let groups = word_groups(&[vec![0, 0]], 1);
        assert_eq!((groups[0].time, &groups[0].forward), (1, &vec![0]));
    }
}
