//! Tokens that begin with a blank, for `--boundary trailing`.

use crate::data::Tokenizer;

/// Which tokens begin with white space, if letters follow it in any of them: else nothing needs to be taken apart.
pub(super) fn blanks(tokenizer: &Tokenizer) -> Vec<bool> {
    // Where only its library can spell a tokenizer's tokens, ▁ stands for a blank; anywhere else it is a character.
    let marked = tokenizer.spellings().is_none();
    let begins = |word: &str| word.starts_with(|first: char| first.is_whitespace() || marked && first == '▁');
    let words = tokenizer.words().iter();
    let joined = words.clone().any(|word| begins(word) && !word.trim().is_empty());
    words.map(|word| joined && begins(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::blanks;

    #[test]
    fn blanks_are_a_set_only_where_tokens_join_them_to_letters() {
        use crate::config::Unit;
        use crate::predict::tiny::tokenizer;
        assert!(!blanks(&tokenizer(Unit::Char, "the river\n")).contains(&true));
        let marked = "▁the river and the ▁river\n".repeat(9); // ▁ is a blank to tokenizers of other programs alone
        for unit in [Unit::Char, Unit::Word] {
            assert!(!blanks(&tokenizer(unit, &marked)).contains(&true), "{unit:?}");
        }
        let pairs = tokenizer(Unit::Bpe, &marked);
        assert!(pairs.words().iter().any(|word| word.starts_with('▁')));
        let set = blanks(&pairs);
        for (word, member) in pairs.words().iter().zip(set) {
            assert_eq!(member, word.starts_with([' ', '\n', '\t', '\r', '\x0b', '\x0c']), "{word:?}");
        }
    }
}
