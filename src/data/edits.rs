//! Made-up errors: one edit of one line of clean text, drawn by a seed, for pairs of a good and a bad sentence.
//!
//! An edit may by chance give a line that is right too, as another order of words may: accuracies on such pairs are to
//! compare models, not an absolute measure.

use rhn_kernels::rng::Rng;
use std::ops::Range;

/// What an edit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Edit {
    /// Swaps two neighbouring words
    Swap,
    /// Leaves out a function word
    Delete,
    /// Writes a function word twice
    Double,
    /// Takes another of a/an, is/are, was/were, has/have, in/on/at
    Exchange,
    /// Drops or adds a final s
    FinalS,
    /// Changes, drops, adds or swaps a character of a word of at least four, never the first
    Character,
}

/// Words that another of the same set takes the place of.
const EXCHANGED: [&[&str]; 5] =
    [&["a", "an"], &["is", "are"], &["was", "were"], &["has", "have"], &["in", "on", "at"]];

/// English words of grammar alone.
const FUNCTION_WORDS: [&str; 54] = [
    "a", "an", "the", "this", "that", "these", "those", "my", "your", "his", "her", "its", "our", "their",
    "and", "or", "but", "if", "as", "than", "of", "to", "in", "on", "at", "by", "for", "from", "with",
    "into", "upon", "is", "are", "was", "were", "be", "been", "has", "have", "had", "do", "does", "did",
    "will", "would", "shall", "should", "can", "could", "may", "might", "must", "not", "so",
];

/// Characters of the shortest word that a character or a final s is edited in.
const LONG: usize = 4;

impl Edit {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Swap, Self::Delete, Self::Double, Self::Exchange, Self::FinalS, Self::Character];

    /// As it is written in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Swap => "swap",
            Self::Delete => "delete",
            Self::Double => "double",
            Self::Exchange => "exchange",
            Self::FinalS => "final-s",
            Self::Character => "character",
        }
    }

    /// The line with one such error at a place that `rng` draws; none if it has no place for one. The result differs from
    /// `line`.
    pub fn apply(self, line: &str, rng: &mut Rng) -> Option<String> {
        let words = words(line);
        let edited = match self {
            Self::Swap => swap(line, &words, rng),
            Self::Delete => delete(line, &words, rng),
            Self::Double => {
                let word = draw(rng, &function_words(line, &words))?.core.clone();
                Some(format!("{} {}{}", &line[..word.end], &line[word.clone()], &line[word.end..]))
            }
            Self::Exchange => exchange(line, &words, rng),
            Self::FinalS => final_s(line, &words, rng),
            Self::Character => character(line, &words, rng),
        };
        edited.filter(|edited| edited != line)
    }
}

/// How often kinds are drawn for a line in which none has changed anything: an edit of a character may put in the one that stands
/// there.
const ROUNDS: usize = 100;

/// The line with an error of one of `kinds`, each that has a place equally likely; none if no kind has.
pub fn one_edit(line: &str, kinds: &[Edit], rng: &mut Rng) -> Option<(String, Edit)> {
    let may_change_nothing = kinds.contains(&Edit::Character) && !long_words(line, &words(line)).is_empty();
    (0..if may_change_nothing { ROUNDS } else { 1 }).find_map(|_| {
        let edited: Vec<(String, Edit)> =
            kinds.iter().filter_map(|&kind| Some((kind.apply(line, rng)?, kind))).collect();
        draw(rng, &edited).cloned()
    })
}

/// A word of a line.
#[derive(Clone)]
struct Word {
    /// It without the punctuation at its ends; empty if there is nothing else.
    core: Range<usize>,
    /// All of it, which white space or the line's ends bound.
    whole: Range<usize>,
}

fn words(line: &str) -> Vec<Word> {
    let offset = |part: &str| part.as_ptr() as usize - line.as_ptr() as usize;
    let span = |part: &str| offset(part)..offset(part) + part.len();
    let of = |whole: &str| {
        let core = whole.trim_matches(|char: char| !char.is_alphanumeric());
        Word { core: span(core), whole: span(whole) }
    };
    line.split_whitespace().map(of).collect()
}

fn draw<'a, T>(rng: &mut Rng, from: &'a [T]) -> Option<&'a T> {
    from.get((rng.uniform() * from.len() as f64) as usize)
}

/// `line` with `text` in place of `span`.
fn replaced(line: &str, span: &Range<usize>, text: &str) -> String {
    format!("{}{text}{}", &line[..span.start], &line[span.end..])
}

fn is_function_word(word: &str) -> bool {
    FUNCTION_WORDS.contains(&word.to_lowercase().as_str())
}

fn function_words(line: &str, words: &[Word]) -> Vec<Word> {
    words.iter().filter(|word| is_function_word(&line[word.core.clone()])).cloned().collect()
}

/// Two neighbours without punctuation between them change places; the first word, whose capital would give it away, stays.
fn swap(line: &str, words: &[Word], rng: &mut Rng) -> Option<String> {
    let can = |pair: &&[Word]| {
        let joined = pair[0].core.end == pair[0].whole.end && pair[1].core.start == pair[1].whole.start;
        let [first, second] = [0, 1].map(|at| line[pair[at].core.clone()].to_lowercase());
        joined && !first.is_empty() && !second.is_empty() && first != second
    };
    let pairs: Vec<&[Word]> = words.get(1..)?.windows(2).filter(can).collect();
    let pair = draw(rng, &pairs)?;
    let [first, second] = [0, 1].map(|at| pair[at].core.clone());
    let [a, b] = [&line[first.clone()], &line[second.clone()]];
    let between = &line[first.end..second.start];
    Some(replaced(line, &(first.start..second.end), &format!("{b}{between}{a}")))
}

/// A function word without punctuation goes, with the white space after it; the first stays.
fn delete(line: &str, words: &[Word], rng: &mut Rng) -> Option<String> {
    let places: Vec<Range<usize>> = words
        .windows(2)
        .skip(1)
        .filter(|pair| pair[0].core == pair[0].whole && is_function_word(&line[pair[0].core.clone()]))
        .map(|pair| pair[0].whole.start..pair[1].whole.start)
        .collect();
    draw(rng, &places).map(|place| replaced(line, place, ""))
}

fn exchange(line: &str, words: &[Word], rng: &mut Rng) -> Option<String> {
    let options: Vec<(&Range<usize>, &str)> = words
        .iter()
        .flat_map(|word| {
            let lower = line[word.core.clone()].to_lowercase();
            let set = EXCHANGED.iter().find(|set| set.contains(&lower.as_str())).copied().unwrap_or(&[]);
            let others = set.iter().copied().filter(move |other| *other != lower);
            others.map(|other| (&word.core, other))
        })
        .collect();
    let &(span, other) = draw(rng, &options)?;
    let capital = line[span.clone()].starts_with(char::is_uppercase);
    let first = if capital { other[..1].to_uppercase() } else { other[..1].to_owned() };
    Some(replaced(line, span, &format!("{first}{}", &other[1..])))
}

/// Words of lower case letters that are long enough to be edited.
fn long_words<'a>(line: &str, words: &'a [Word]) -> Vec<&'a Range<usize>> {
    let is_long = |core: &&Range<usize>| {
        let word = &line[(*core).clone()];
        word.chars().count() >= LONG && word.chars().all(char::is_lowercase)
    };
    words.iter().map(|word| &word.core).filter(is_long).collect()
}

fn final_s(line: &str, words: &[Word], rng: &mut Rng) -> Option<String> {
    let content: Vec<&Range<usize>> = long_words(line, words)
        .into_iter()
        .map(|core| (core, &line[core.clone()]))
        .filter(|(_, word)| word.is_ascii() && !is_function_word(word)) // an s is an ending of English words
        .map(|(core, _)| core)
        .collect();
    let span = *draw(rng, &content)?;
    let word = &line[span.clone()];
    let edited = match word.strip_suffix('s') {
        Some(stem) if !stem.ends_with('s') => stem.to_owned(),
        _ => format!("{word}s"),
    };
    Some(replaced(line, span, &edited))
}

/// Letters that are put in are the line's own, so that they are in any vocabulary that has the line.
fn character(line: &str, words: &[Word], rng: &mut Rng) -> Option<String> {
    let span = *draw(rng, &long_words(line, words))?;
    let mut word: Vec<char> = line[span.clone()].chars().collect();
    let letters: Vec<char> = line.chars().filter(|char| char.is_lowercase()).collect();
    let letter = *draw(rng, &letters)?;
    let at = 1 + (rng.uniform() * (word.len() - 2) as f64) as usize; // not the first, nor the last unless it is swapped
    match (rng.uniform() * 4.0) as usize {
        0 => word[at] = letter,
        1 => drop(word.remove(at)),
        2 => word.insert(at, letter),
        _ => word.swap(at, at + 1),
    }
    Some(replaced(line, span, &String::from_iter(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What the kind makes of a line, over many draws.
    fn all(kind: Edit, line: &str) -> BTreeSet<String> {
        (0..200).filter_map(|at| kind.apply(line, &mut Rng::keyed(1, "test", at))).collect()
    }

    fn set(lines: &[&str]) -> BTreeSet<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn each_kind_gives_all_and_only_its_edits() {
        let line = "So he was in, the cats sit";
        let swaps =
            ["So was he in, the cats sit", "So he in was, the cats sit", "So he was in, cats the sit"];
        assert_eq!(all(Edit::Swap, line), set(&[&swaps[..], &["So he was in, the sit cats"]].concat()));
        let deleted = ["So he in, the cats sit", "So he was in, cats sit"];
        assert_eq!(all(Edit::Delete, line), set(&deleted));
        let doubled = [
            "So So he was in, the cats sit",
            "So he was was in, the cats sit",
            "So he was in in, the cats sit",
            "So he was in, the the cats sit",
        ];
        assert_eq!(all(Edit::Double, line), set(&doubled));
        let exchanged =
            ["So he were in, the cats sit", "So he was on, the cats sit", "So he was at, the cats sit"];
        assert_eq!(all(Edit::Exchange, line), set(&exchanged));
        assert_eq!(all(Edit::FinalS, line), set(&["So he was in, the cat sit"]));
        assert_eq!(all(Edit::FinalS, "Grass cross"), set(&["Grass crosss"]));
    }

    #[test]
    fn a_character_edit_is_inside_a_long_word_and_changes_the_line() {
        let found = all(Edit::Character, "An abcd, it is");
        assert!(found.len() > 10);
        for line in found {
            let middle = line.strip_prefix("An a").and_then(|rest| rest.strip_suffix(", it is")).unwrap();
            assert!((2..=4).contains(&middle.len()) && middle != "bcd", "{line}");
        }
    }

    #[test]
    fn a_line_with_a_place_has_an_error_whatever_is_drawn_first() {
        let line = "the all well is good";
        let made = (0..200).filter(|&at| {
            let found = one_edit(line, &[Edit::Character], &mut Rng::keyed(1, "test", at));
            found.is_some_and(|(edited, _)| edited != line)
        });
        assert_eq!(made.count(), 200);
    }

    #[test]
    fn a_capital_stays_and_no_place_is_no_edit() {
        assert_eq!(all(Edit::Exchange, "Is it?"), set(&["Are it?"]));
        assert!(Edit::ALL.iter().all(|kind| kind.apply("— ROMEO:", &mut Rng::keyed(1, "x", 0)).is_none()));
        assert_eq!(one_edit("", &Edit::ALL, &mut Rng::keyed(1, "x", 0)), None);
    }

    #[test]
    fn other_alphabets_are_edited_by_their_own_letters() {
        let line = "она читает книгу";
        for edited in all(Edit::Character, line) {
            assert!(edited.chars().all(|char| line.contains(char)), "{edited}");
        }
    }
}
