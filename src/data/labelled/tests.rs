use super::*;
use crate::config::Unit;
use crate::data::DataDirectories;

fn parse(text: &str) -> Result<Labelled> {
    Labelled::parse(&Text::new(text.as_bytes().to_vec(), "file"))
}

fn sentences(text: &str) -> Vec<(String, bool)> {
    let found = parse(text).unwrap().sentences.into_iter();
    found.map(|sentence| (sentence.text, sentence.needs_edit)).collect()
}

fn wanted(sentences: &[(&str, bool)]) -> Vec<(String, bool)> {
    sentences.iter().map(|&(text, needs_edit)| (text.to_owned(), needs_edit)).collect()
}

fn message(text: &str) -> String {
    parse(text).expect_err("it is refused").to_string()
}

#[test]
fn lines_have_a_label_and_a_sentence() {
    let found = sentences("label\tsentence\r\n1\tA cats sit.\tfinal-s\r\n\n0\t A cat sits. \n");
    assert_eq!(found, wanted(&[("A cats sit.", true), ("A cat sits.", false)]));
    assert_eq!(sentences("0\tlabel\n"), wanted(&[("label", false)])); // no header
}

#[test]
fn the_bad_sentence_of_a_pair_needs_an_edit() {
    let both = wanted(&[("a b", false), ("b a", true)]);
    assert_eq!(sentences("good\tbad\tphenomenon\na b\tb a\tswap\n"), both);
    assert_eq!(sentences("{\"sentence_good\": \"a b\", \"sentence_bad\": \"b a\"}\n"), both);
}

#[test]
fn what_cola_calls_acceptable_needs_no_edit() {
    let found = sentences("gj04\t1\t\tThey drank.\ngj04\t0\t*\tThey drank the pub.\n");
    assert_eq!(found, wanted(&[("They drank.", false), ("They drank the pub.", true)]));
}

#[test]
fn a_file_with_the_header_of_labels_is_not_colas_however_many_columns_it_has() {
    let found = sentences("label\tsentence\tkind\tsource\n1\ta b\tswap\tmine\n0\tb\n");
    assert_eq!(found, wanted(&[("a b", true), ("b", false)]));
}

#[test]
fn a_line_that_is_not_as_the_others_is_refused_with_its_number() {
    for (text, found) in [
        ("0\ta\n2\tb\n", "file: line 2: the label is \"2\"; wanted label<TAB>sentence"),
        ("0\ta\n1\t \n", "line 2: the sentence is empty"),
        ("alone\n", "line 1: has 1 column;"),
        ("0\ta\nx\t1\t\tb\n", "line 2: the label is \"x\"; wanted label<TAB>sentence"),
        ("x\t1\t\tb\n0\ta\n", "line 2: has 2 columns; wanted CoLA's"),
        ("good\tbad\na\n", "line 2: has 1 column, wanted good<TAB>bad"),
        ("\n", "has no sentences"),
        ("label\tsentence\n", "has no sentences"),
    ] {
        assert!(message(text).contains(found), "{:?} for {text:?}", message(text));
    }
}

const AESW: &str = "<?xml version=\"1.0\"?><!DOCTYPE doc>\n<doc><par pid=\"1\"><!-- <sentence> -->\n\
    <sentence sid=\"1.0\">Let _MATH_ <del>is</del> <ins>be</ins> &lt; 1 &amp; so&#8212;on &hellip; _CITE_.</sentence>\n\
    <sentence sid=\"1.1\">As\n it   should be.</sentence><sentence sid=\"1 > 2\"><ins>New.</ins></sentence>\n\
    <sentence>A <del> </del>b<![CDATA[ <c>]]></sentence><sentence/></par></doc>\n";

#[test]
fn a_sentence_of_aesw_is_its_text_before_the_edit() {
    let found = parse(AESW).unwrap();
    assert_eq!(found.left_out, 2);
    let wanted = wanted(&[
        ("Let _MATH_ is < 1 & so—on &hellip; _CITE_.", true),
        ("As it should be.", false),
        ("A b <c>", false), // but for white space, the edit is none
    ]);
    assert_eq!(sentences(AESW), wanted);
}

#[test]
fn broken_xml_is_refused_with_its_line() {
    for (text, found) in [
        ("<doc>\n<sentence>a", "file: line 2: this <sentence> is not ended"),
        ("<doc>\n<sentence>a <sentence>b", "line 2: <sentence> in a <sentence>"),
        ("<sentence>a <ins>b</sentence>", "line 1: </sentence> in <del> or <ins>"),
        ("<sentence>a <ins>b <del>c", "line 1: <del> where none can be"),
        ("<sentence>a </ins>b", "line 1: </ins> where none can be"),
        ("<doc>\n\n</sentence>", "line 3: </sentence> without its"),
        ("<doc><ins>a</ins>", "line 1: <ins> outside of a <sentence>"),
        ("<sentence>a <b>c</b>", "line 1: <b> in a sentence; wanted <del> and <ins>"),
        ("<doc>\n<sentence a=\">b", "line 2: \"<sentence a="),
        ("<doc></doc>", "has no sentences"),
        ("<", "line 1: \"<\" begins a tag"),
    ] {
        assert!(message(text).contains(found), "{:?} for {text:?}", message(text));
    }
}

fn open(place: &Path, name: &str, split: [f64; 3]) -> Result<LabelledCorpus> {
    let name = place.join(name).display().to_string();
    let config = CorpusConfig { split, ..CorpusConfig::new(name, Unit::Word) };
    LabelledCorpus::open(&config, &DataDirectories::new(None).unwrap())
}

#[test]
fn one_file_is_cut_between_pairs_and_a_directory_has_its_splits() {
    let place = tempfile::tempdir().unwrap();
    let pairs: String = (0..10).map(|k| format!("a{k} b\tb a{k}\n")).collect();
    std::fs::write(place.path().join("pairs.tsv"), format!("good\tbad\n{pairs}")).unwrap();
    let corpus = open(place.path(), "pairs.tsv", [75.0, 15.0, 10.0]).unwrap();
    let sizes =
        [&corpus.train, &corpus.valid, corpus.test.as_ref().unwrap()].map(|part| part.sentences.len());
    assert_eq!(sizes, [16, 2, 2]); // 7.5 pairs are 8
    assert_eq!(corpus.valid.sentences[0].text, "a8 b");
    assert!(corpus.training_text().as_str().unwrap().ends_with("a7 b\nb a7\n"));

    let folder = place.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for name in ["in_domain_train.tsv", "aesw.dev.xml", "notes.txt"] {
        let content = if name.ends_with("xml") { AESW } else { "0\ta\n1\tb\n" };
        std::fs::write(folder.join(name), content).unwrap();
    }
    let corpus = open(place.path(), "folder", [90.0, 5.0, 5.0]).unwrap();
    assert!(corpus.test.is_none() && corpus.left_out == 2 && corpus.train.positives() == 1);
}

#[test]
fn a_corpus_that_nothing_can_be_learned_from_is_refused() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("one.tsv"), "0\ta\n0\tb\n1\tc\n").unwrap();
    let message = |split| open(place.path(), "one.tsv", split).unwrap_err().to_string();
    assert!(
        message([67.0, 33.0, 0.0]).contains("the training split has 2 sentences of which 0 need an edit")
    );
    assert!(message([90.0, 5.0, 5.0]).contains("none is left for validation"));
    std::fs::create_dir(place.path().join("empty")).unwrap();
    let found = open(place.path(), "empty", [90.0, 5.0, 5.0]).unwrap_err().to_string();
    assert!(found.contains("has no training split; wanted train.tsv or train.xml"), "{found}");
    let config = CorpusConfig::new("shakespeare", Unit::Word);
    let found = LabelledCorpus::open(&config, &DataDirectories::new(None).unwrap()).unwrap_err().to_string();
    assert!(found.contains("wanted labelled sentences"), "{found}");
}
