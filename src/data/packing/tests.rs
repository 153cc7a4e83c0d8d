//! Tests of sentences packed into batch rows.

use super::*;
use crate::config::Unit;
use crate::data::sentences::TextSentences;
use crate::data::{Text, Tokenizer};
use crate::predict::tiny;
use std::sync::Arc;

const ROWS: usize = 3;
const STEPS: usize = 4;

/// Sentence number n is n letters, of which there are 1 to 9, and its line end; they tell themselves apart.
fn text() -> (Tokenizer, String) {
    let text: String = (0..40u8)
        .map(|n| format!("{}\n", char::from(b'a' + n % 26).to_string().repeat(1 + usize::from(n) % 9)))
        .collect();
    (tiny::tokenizer(Unit::Char, &text), text)
}

fn rows(seed: Option<u64>, block: usize) -> PackedRows {
    let (tokenizer, text) = text();
    let end = tokenizer.line_end_id().unwrap();
    let encoded = Arc::new(tokenizer.encode(&Text::from(text.as_str())).unwrap());
    let source = Box::new(TextSentences::new(encoded, end, block));
    PackedRows::new("text", source, ROWS, end, seed).unwrap()
}

fn windows(rows: &PackedRows, epoch: u64, range: std::ops::Range<usize>) -> Vec<WindowIds> {
    range.map(|index| rows.window(epoch, index, &|_| STEPS).unwrap()).collect()
}

/// What each row reads in these windows.
fn by_row(windows: &[WindowIds], which: usize) -> Vec<Vec<u32>> {
    let row = |row: usize| {
        windows.iter().flat_map(move |ids| ids[which].iter().skip(row).step_by(ROWS).copied()).collect()
    };
    (0..ROWS).map(row).collect()
}

#[test]
fn rows_take_whole_sentences_in_the_order_of_the_stream() {
    let (tokenizer, text) = text();
    let end = tokenizer.line_end_id().unwrap();
    let ids = windows(&rows(None, 7), 0, 0..5);
    let encode = |lines: &[usize]| {
        let lines: String =
            lines.iter().map(|&line| format!("{}\n", text.lines().nth(line).unwrap())).collect();
        tokenizer.encode(&Text::from(lines.as_str())).unwrap().tokens.to_vec()
    };
    // Tokens of the lines: 2 3 4 5 6 7 8 9 10 2 3 4 … Window 1: row 0 takes lines 0, 1; row 1 takes 2; row 2 takes 3.
    // Window 2: row 0 has 1 token left and takes 4; row 1 takes 5; row 2 has 1 left and takes 6.
    let targets = by_row(&ids[..2], 1);
    assert_eq!(targets[0], encode(&[0, 1, 4])[..8]);
    assert_eq!(targets[1], encode(&[2, 5])[..8]);
    assert_eq!(targets[2], encode(&[3, 6])[..8]);
    for (inputs, targets) in by_row(&ids, 0).iter().zip(by_row(&ids, 1)) {
        assert_eq!(inputs[0], end);
        assert_eq!(inputs[1..], targets[..targets.len() - 1]);
    }
}

#[test]
fn any_window_is_found_as_if_all_before_had_been_read() {
    for seed in [None, Some(3)] {
        for block in [1, 7, 1000] {
            let whole = windows(&rows(seed, block), 2, 0..30);
            for index in [0, 1, 13, 29] {
                assert_eq!(rows(seed, block).window(2, index, &|_| STEPS).unwrap(), whole[index]);
            }
        }
    }
}

#[test]
fn an_epoch_has_every_sentence_once_and_begins_again_where_its_windows_are_not_full() {
    let (tokenizer, text) = text();
    let end = tokenizer.line_end_id().unwrap();
    let tokens = text.chars().count();
    let read = windows(&rows(Some(1), 7), 0, 0..tokens / (ROWS * STEPS));
    let mut lines: Vec<String> = Vec::new();
    for row in by_row(&read, 1) {
        let whole = row.split_inclusive(|&id| id == end).filter(|line| line.last() == Some(&end));
        lines.extend(whole.map(|line| line.iter().map(|&id| tokenizer.token(id)).collect::<String>()));
    }
    let count = lines.len();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), count, "a sentence came twice before all had come");
    assert!(count >= 40 - ROWS, "{count} whole sentences of 40");
    let far = rows(Some(1), 7).window(0, 100, &|_| STEPS).unwrap(); // 1,200 tokens of 230
    assert_eq!(far[0].len(), ROWS * STEPS);
}

#[test]
fn the_order_is_that_of_the_seed_and_another_each_epoch() {
    let read = |seed, epoch| windows(&rows(Some(seed), 7), epoch, 0..10);
    assert_eq!(read(1, 0), read(1, 0));
    assert_ne!(read(1, 0), read(1, 1));
    assert_ne!(read(1, 0), read(2, 0));
}

#[test]
fn windows_may_have_any_number_of_steps() {
    let steps = |window: usize| [3, 7, 1, 12][window % 4];
    let rows = rows(Some(5), 7);
    let whole: Vec<_> = (0..8).map(|index| rows.window(0, index, &steps).unwrap()).collect();
    assert_eq!(whole[3][0].len(), 12 * ROWS);
    assert_eq!(rows.window(0, 6, &steps).unwrap(), whole[6]);
}
