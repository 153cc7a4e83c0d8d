//! How often each word is in a text and where it came first: a table for tens of millions of different words.
//!
//! A word that is rare is far away in memory. Words are looked up some at a time, so that the processor waits for several
//! of them at once: first all hashes, then all places, then all words.

/// Words that are looked up together.
pub(super) const TOGETHER: usize = 32;

/// Places of a table with few words.
const FEWEST: usize = 1024;

/// How often a word is in the text, and where it came first: the number of its source and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) count: u64,
    pub(super) first: (u32, u64),
}

/// The table: places by hash, in which the numbers of words are; the words one after another.
#[derive(Debug, Default)]
pub(crate) struct WordCounts {
    /// The upper half of a word's hash and its number plus one; 0 where there is none.
    places: Vec<(u32, u32)>,
    words: Vec<Word>,
    letters: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    start: usize,
    length: u32,
    source: u32,
    position: u64,
    count: u64,
}

impl Word {
    fn seen(&self) -> Seen {
        Seen { count: self.count, first: (self.source, self.position) }
    }
}

impl WordCounts {
    /// Adds words that were seen, at most [`TOGETHER`].
    pub(super) fn add(&mut self, seen: &[(&str, Seen)]) {
        self.reserve(seen.len());
        let mut hashes = [0; TOGETHER];
        let mut found = [(0, 0); TOGETHER];
        let mask = self.places.len() - 1;
        seen.iter().zip(&mut hashes).for_each(|((word, _), of)| *of = hash(word.as_bytes()));
        let places = hashes.iter().zip(&mut found).take(seen.len());
        places.for_each(|(hash, of)| *of = self.places[*hash as usize & mask]);
        // Reads each word's record and letters without a branch that waits for them.
        let there = found.iter().take(seen.len()).filter(|place| place.1 > 0);
        let near = there.fold(0u64, |sum, &(_, number)| {
            let word = &self.words[number as usize - 1];
            sum.wrapping_add(self.letters.get(word.start).copied().map_or(0, u64::from))
                .wrapping_add(word.count)
        });
        std::hint::black_box(near);
        for ((word, seen), hash) in seen.iter().zip(hashes) {
            self.add_hashed(word.as_bytes(), hash, *seen);
        }
    }

    /// Adds the counts of another table.
    pub(super) fn join(&mut self, other: &Self) {
        let mut held = Vec::with_capacity(TOGETHER);
        for seen in other.iter() {
            held.push(seen);
            if held.len() == TOGETHER {
                self.add(&held);
                held.clear();
            }
        }
        self.add(&held);
    }

    /// What is known of a word.
    pub(super) fn get(&self, word: &str) -> Option<Seen> {
        let number = self.find(word.as_bytes(), hash(word.as_bytes())).ok()?;
        Some(self.words[number].seen())
    }

    /// The words with their counts, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Seen)> {
        self.words.iter().map(|word| {
            let letters = &self.letters[word.start..word.start + word.length as usize];
            let text = std::str::from_utf8(letters).unwrap_or_default(); // it was a str
            (text, word.seen())
        })
    }

    fn add_hashed(&mut self, word: &[u8], hash: u64, seen: Seen) {
        match self.find(word, hash) {
            Ok(number) => {
                let known = &mut self.words[number];
                known.count += seen.count;
                (known.source, known.position) = (known.source, known.position).min(seen.first);
            }
            Err(place) => {
                let start = self.letters.len();
                self.letters.extend_from_slice(word);
                let (source, position) = seen.first;
                let length = word.len() as u32;
                self.words.push(Word { start, length, source, position, count: seen.count });
                self.places[place] = ((hash >> 32) as u32, self.words.len() as u32);
            }
        }
    }

    /// The number of a word, or the empty place that it would get.
    fn find(&self, word: &[u8], hash: u64) -> Result<usize, usize> {
        let mask = self.places.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            match self.places.get(at) {
                None | Some((_, 0)) => return Err(at), // an empty table has no place at all
                Some(&(tag, number)) if tag == (hash >> 32) as u32 && self.is(number, word) => {
                    return Ok(number as usize - 1);
                }
                Some(_) => at = (at + 1) & mask,
            }
        }
    }

    fn is(&self, number: u32, word: &[u8]) -> bool {
        let known = &self.words[number as usize - 1];
        known.length as usize == word.len() && self.letters[known.start..known.start + word.len()] == *word
    }

    /// Room for so many more words: at least half of the places stay empty.
    fn reserve(&mut self, more: usize) {
        let wanted = (2 * (self.words.len() + more)).max(FEWEST);
        if wanted <= self.places.len() {
            return;
        }
        let size = wanted.next_power_of_two();
        self.places = vec![(0, 0); size];
        for (word, number) in self.words.iter().zip(1..) {
            let hash = hash(&self.letters[word.start..word.start + word.length as usize]);
            let mut at = hash as usize & (size - 1);
            while self.places[at].1 > 0 {
                at = (at + 1) & (size - 1);
            }
            self.places[at] = ((hash >> 32) as u32, number);
        }
    }
}

/// Eight bytes at a time, each times an odd number and folded.
fn hash(word: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = word.len() as u64;
    for bytes in word.chunks(8) {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        let product = u128::from(hash ^ u64::from_le_bytes(eight)) * u128::from(ODD);
        hash = (product as u64) ^ (product >> 64) as u64;
    }
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn words_are_counted_as_a_map_counts_them_however_they_come() {
        let words: Vec<String> = (0..20_000u64).map(|at| format!("{:x}", at * at % 7919)).collect();
        let mut wanted: HashMap<&str, Seen> = HashMap::new();
        let mut halves = [WordCounts::default(), WordCounts::default()];
        for (at, word) in words.iter().enumerate() {
            let seen = Seen { count: 1, first: (at as u32 % 2, at as u64) };
            let known = wanted.entry(word).or_insert(Seen { count: 0, ..seen });
            known.count += 1;
            known.first = known.first.min(seen.first);
            halves[at % 2].add(&[(word, seen)]);
        }
        let [mut one, other] = halves;
        one.join(&other);
        assert_eq!(one.iter().collect::<HashMap<_, _>>(), wanted);
        assert!(wanted.iter().all(|(word, seen)| one.get(word) == Some(*seen)));
        assert_eq!((one.get("none"), WordCounts::default().get("none")), (None, None));
    }

    #[test]
    fn several_words_of_one_call_may_be_the_same() {
        let mut counts = WordCounts::default();
        let seen = |position| Seen { count: 1, first: (0, position) };
        counts.add(&[("a", seen(0)), ("", seen(1)), ("a", seen(2))]);
        let found: Vec<_> = counts.iter().collect();
        assert_eq!(found, [("a", Seen { count: 2, first: (0, 0) }), ("", seen(1))]);
    }
}
