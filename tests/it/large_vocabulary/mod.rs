//! Large vocabularies from outside: every command that needs an adaptive softmax's probabilities, runs with sampled losses
//! that go on where they stopped, and what is refused.

mod parity;

use crate::support::run::{Place, assert_fails, stderr, stdout};

/// Words, sorted by how often they come.
const WORDS: &str = "--set corpus.unit=word --set train.epochs=2 --set train.optimizer=adagrad \
    --set train.learning_rate=0.2 --set train.clip={core=1.0} --set train.max_grad_norm=0 \
    --set model.core={kind=\"lstm\",hidden_size=9,projection=8} --set train.dropout={input=0.1,output=0.1}";
const ADAPTIVE: &str = "--set model.output={kind=\"adaptive\",cutoffs=[3,6],div_value=2}";
const TIED: &str = "--set model.embedding={kind=\"adaptive\",cutoffs=[3,6],div_value=2} \
    --set model.output={kind=\"adaptive\",tied=true,cutoffs=[3,6],div_value=2}";
const SAMPLED: &str = "--set model.output={by_word=true} --set train.loss={kind=\"sampled\",samples=4}";
/// The same with one sum of squares for each row of the two tables.
const BY_ROW: &str = "--set model.output={by_word=true} --set train.loss={kind=\"sampled\",samples=4} \
    --set train.accumulator=row";
/// The same with tables of two bytes a number.
const TWO_BYTES: &str = "--set model.output={by_word=true} --set train.loss={kind=\"sampled\",samples=4} \
    --set train.accumulator=row --set train.tables=f16";
const TWO_BYTES_TIED: &str =
    "--set model.output={tied=true} --set train.loss={kind=\"nce\",samples=3} --set train.tables=f16";
const NCE: &str = "--set model.output={tied=true} --set train.loss={kind=\"nce\",samples=3}";
const SPELLED: &str = "--set model.embedding={kind=\"char-cnn\",char_size=3,filter_widths=[1,2],filter_counts=[3,4],\
    highway_layers=1} --set model.output={kind=\"char-cnn\",correction=3} --set train.loss={kind=\"sampled\",samples=4}";

/// Words by their bytes.
const BYTES: &str = "--set model.embedding={kind=\"char-cnn\",characters=\"bytes\",char_size=3,filter_widths=[1,2],\
    filter_counts=[3,4],highway_layers=1,max_word_length=12,projection=6} --set corpus.min_count=2";

/// The same by two LSTMs.
const BYTES_BOTH_WAYS: &str = "--set model.embedding={kind=\"char-lstm\",characters=\"bytes\",char_size=3,char_hidden=4,\
    word_size=6,highway_layers=1,max_word_length=12} --set corpus.min_count=2";

/// A word that the vocabulary lacks is predicted as <unk> and read as it is.
#[test]
fn over_bytes_what_follows_an_unseen_word_depends_on_its_spelling() {
    let place = Place::new();
    place.train(&format!("--out run {WORDS} {BYTES}"));
    place.train(&format!("--out both-ways {WORDS} {BYTES_BOTH_WAYS}"));
    place.train(&format!("--out words {WORDS} --set corpus.min_count=2"));
    assert_eq!(place.json("run/config.json")["embedding"]["characters"], "bytes");
    let surprisals = |run: &str, text: &str| -> Vec<f64> {
        place.write("text", text);
        let rows = place.rhn(&format!("score {run} text --json"));
        assert_eq!(rows.status.code(), Some(0), "{}", stderr(&rows));
        let rows = stdout(&rows);
        let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
        rows.filter_map(|row| row["surprisal"].as_f64()).collect()
    };
    for run in ["run", "both-ways", "words"] {
        let [one, again, other] =
            ["be zyx be\n", "be  zyx be\n", "be \u{3bb}123 be\n"].map(|text| surprisals(run, text));
        assert_eq!(one, again, "{run}: blanks do not count");
        assert_eq!(one[..2], other[..2], "{run}: both are <unk>");
        assert_eq!(one[2..] == other[2..], run == "words", "{run}: {one:?} and {other:?}");
    }
}

/// Pairs and lists have the scores that their lines have alone, unseen words included.
#[test]
fn over_bytes_pairs_and_hypotheses_are_scored_as_rhn_score_does() {
    let place = Place::new();
    let sentences = ["be zyx be", "be \u{3bb}123 be", "zyx zyx", "zyx \u{3bb}123", "be", "zyx be or be be"];
    place.write("text", sentences.join("\n") + "\n");
    place.write("pairs.tsv", sentences.chunks(2).map(|pair| pair.join("\t") + "\n").collect::<String>());
    let list = |(at, text): (usize, &&str)| format!("{at}\t0\t{text}\n");
    place.write("lists.tsv", sentences.iter().enumerate().map(list).collect::<String>());
    let objects = |args: &str| -> Vec<serde_json::Value> {
        let output = place.rhn(args);
        assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for (run, settings) in [("cnn", BYTES), ("lstm", BYTES_BOTH_WAYS), ("words", "--set corpus.min_count=2")]
    {
        place.train(&format!("--out {run} {WORDS} {settings}"));
        let numbers = |rows: &[serde_json::Value], keys: &[&str]| -> Vec<f64> {
            rows.iter().flat_map(|row| keys.iter().filter_map(|key| row[*key].as_f64())).collect()
        };
        let mut lines =
            objects(&format!("score {run} text --reset line --per line --base e --json --precision f64"));
        lines.pop(); // the total
        let wanted: Vec<f64> = numbers(&lines, &["surprisal"]).iter().map(|nats| -nats).collect();
        let judged = objects(&format!("judge {run} pairs.tsv --json --precision f64"));
        let by_pairs = numbers(&judged, &["score_good", "score_bad"]);
        let by_lists = numbers(&objects(&format!("rescore {run} lists.tsv --json --precision f64")), &["lp"]);
        for found in [by_pairs, by_lists] {
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((found - wanted).abs() < 1e-10, "{run}: {found} for {wanted}");
            }
        }
        assert_eq!(judged[0]["outcome"] == "tie", run == "words", "{run}: {}", judged[0]);
    }
}

#[test]
fn over_bytes_a_context_is_read_as_the_text_itself_would_be() {
    let place = Place::new();
    place.train(&format!("--out run {WORDS} {BYTES}"));
    place.write("rest", "be be\n");
    for begin in ["be zyx", "be \u{3bb}123"] {
        place.write("begin", begin);
        place.write("whole", format!("{begin} be be\n"));
        let scores = |args: &str| -> Vec<f64> {
            let output = place.rhn(&format!("score run {args} --precision f64"));
            assert!(stderr(&output).contains("read as spelled"), "{}", stderr(&output));
            let rows = stdout(&output);
            rows.lines().skip(1).map(|row| row.split('\t').nth(3).unwrap().parse().unwrap()).collect()
        };
        let whole = scores("whole");
        for reset in ["document", "line"] {
            assert_eq!(
                scores(&format!("rest --context begin --reset {reset}")),
                whole[2..],
                "{begin} {reset}"
            );
        }
    }
}

#[test]
fn every_command_that_needs_the_probabilities_of_an_adaptive_softmax_works() {
    let place = Place::new();
    place.train(&format!("--out run {WORDS} {ADAPTIVE}"));
    let config = place.json("run/config.json");
    assert_eq!(config["sorted_by_frequency"], true);
    assert_eq!(config["output"]["cutoffs"], serde_json::json!([3, 6]));
    assert!(stdout(&place.rhn("inspect run")).contains("adaptive softmax, cut at 3, 6"));

    let of =
        |args: &str| place.json_of(&format!("eval run --json {args}"))["nats_per_token"].as_f64().unwrap();
    let plain = of("");
    assert!((of("--temperature 1.0000001") - plain).abs() < 1e-4); // all of ln p for the targets' is the same
    assert!(of("--temperature 3") != plain && of("--mc 2") != plain);
    assert!(of("--cache 20") != plain && of("--dynamic") != plain);
    let sampled = place.rhn("sample run --tokens 20 --seed 3");
    assert_eq!(sampled.status.code(), Some(0), "{}", stderr(&sampled));
    place.write("line.txt", "To be ,\n");
    assert_eq!(place.rhn("score run line.txt").status.code(), Some(0));
}

/// Windows of 256 tokens compute the tails that their targets need; one token after another computes all of them.
#[test]
fn a_window_and_single_tokens_cost_the_same() {
    for output in [ADAPTIVE, TIED, SPELLED] {
        windows_and_single_tokens_cost_the_same(output);
    }
}

fn windows_and_single_tokens_cost_the_same(output: &str) {
    let place = Place::new();
    place.train(&format!("--out run {WORDS} {output}"));
    let stream = place.json_of("eval run --split valid --json")["nats_per_token"].as_f64().unwrap();
    let dynamic = "--dynamic --dynamic-rate 1e-12 --dynamic-decay 0 --segment 1";
    let single =
        place.json_of(&format!("eval run --split valid --json {dynamic}"))["nats_per_token"].as_f64();
    assert!((stream - single.unwrap()).abs() < 1e-4, "{single:?} for {stream}");
}

/// The run to its end, and again in pieces: nothing may differ, whatever was drawn for a step or left alone in it.
#[test]
fn runs_with_a_large_vocabulary_resume_exactly_on_any_number_of_threads() {
    for output in
        [ADAPTIVE, TIED, SAMPLED, BY_ROW, TWO_BYTES, TWO_BYTES_TIED, NCE, SPELLED, BYTES, BYTES_BOTH_WAYS]
    {
        let place = Place::new();
        place.train(&format!("--out whole --threads 1 {WORDS} {output}"));
        for steps in [3, 11] {
            place.train(&format!("--out pieces --threads 3 {WORDS} {output} --resume --max-steps {steps}"));
        }
        place.train(&format!("--out pieces --threads 2 {WORDS} {output} --resume"));
        for (one, other) in place.fingerprint("whole").into_iter().zip(place.fingerprint("pieces")) {
            assert_eq!(one, other, "{output}");
        }
    }
}

/// Tables whose numbers take two bytes are learned as others are; a checkpoint keeps them as they are, and every command reads
/// them.
#[test]
fn tables_of_two_bytes_a_number_are_learned_kept_and_read() {
    for (two_bytes, four_bytes) in [(TWO_BYTES, BY_ROW), (TWO_BYTES_TIED, NCE)] {
        two_and_four_bytes(two_bytes, four_bytes);
    }
}

fn two_and_four_bytes(two_bytes: &str, four_bytes: &str) {
    let place = Place::new();
    let valid = |out: &str| {
        let events = std::fs::read_to_string(place.path(&format!("{out}/metrics.jsonl"))).unwrap();
        let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        events.filter_map(|event| event["valid_nats_per_token"].as_f64()).next_back().unwrap()
    };
    place.train(&format!("--out two {WORDS} {two_bytes} --set train.epochs=8"));
    place.train(&format!("--out four {WORDS} {four_bytes} --set train.epochs=8"));
    let [two, four] = ["two", "four"].map(valid);
    assert!((two - four).abs() < 0.03, "{two} and {four}");
    let types = |run: &str| -> Vec<String> {
        let shown = stdout(&place.rhn(&format!("inspect {run}")));
        let tables =
            shown.lines().filter(|line| line.contains("embedding.weight") || line.contains("output.table"));
        tables.map(str::to_string).collect()
    };
    let tables = types("two");
    assert!(!tables.is_empty() && tables.iter().all(|line| line.contains(" f16 ")), "{tables:?}");
    assert!(types("four").iter().all(|line| line.contains("f32")));
    // What training measured by the tables as they are, evaluation finds in the checkpoint.
    let read =
        place.json_of("eval two --split valid --protocol batched --json")["nats_per_token"].as_f64().unwrap();
    assert!((read - two).abs() < 1e-5, "{read} and {two}");
    assert_eq!(place.rhn("sample two --tokens 5").status.code(), Some(0));
}

/// Only in training are words sampled: with as many samples as words, and with the loss of all words, it is one run.
#[test]
fn as_many_samples_as_words_are_the_whole_vocabulary() {
    let place = Place::new();
    place.train(&format!("--out whole {WORDS} --set model.output={{by_word=true}}"));
    place.train(&format!("--out sampled {WORDS} {SAMPLED} --set train.loss.samples=4000"));
    let published = |out: &str| place.fingerprint(out)[0].clone();
    assert_eq!(published("whole"), published("sampled"));
}

#[test]
fn words_that_were_left_out_count_where_the_vocabulary_is_sorted() {
    let place = Place::new();
    // Each of these lines has words of its own, which all become <unk>.
    let lines: String = (0..60).map(|line| format!("a rare{line} b{line} a c\n")).collect();
    place.write("corpus.txt", lines);
    let tokens = |out: &str| -> Vec<String> {
        let vocabulary = place.json(&format!("{out}/tokenizer.json"))["model"]["vocab"].clone();
        let mut words: Vec<(u64, String)> = vocabulary
            .as_object()
            .unwrap()
            .iter()
            .map(|(word, id)| (id.as_u64().unwrap(), word.clone()))
            .collect();
        words.sort();
        words.into_iter().map(|(_, word)| word).collect()
    };
    place.train(&format!("--out plain {WORDS} --set corpus.min_count=2"));
    assert_eq!(tokens("plain"), ["a", "c", "<eos>", "<unk>"]);
    place.train(&format!(
        "--out sorted {WORDS} --set corpus.min_count=2 --set model.output={{kind=\"adaptive\",cutoffs=[2],div_value=2}}"
    ));
    assert_eq!(tokens("sorted"), ["a", "<unk>", "c", "<eos>"]);
}

#[test]
fn what_is_left_out_has_its_default() {
    let place = Place::new();
    place.train(&format!(
        "--out run {WORDS} --set model.output.kind=adaptive --set model.output.div_value=1.5"
    ));
    let config = place.json("run/config.json");
    let size = config["vocab_size"].as_u64().unwrap();
    assert_eq!(config["output"]["cutoffs"], serde_json::json!([1, size * 2 / 5]));
}

#[test]
fn what_large_vocabularies_cannot_do_is_refused_by_name() {
    let place = Place::new();
    place.train(&format!("--out run {WORDS} {ADAPTIVE} --max-steps 2"));
    place.write("text", "To be");
    let output = place.rhn("compress run text --out text.rhn");
    assert_fails(&output, 4, &["has an adaptive softmax for its output", "A model with one softmax can"]);
    let output = place.rhn("export run --to transformers exported");
    assert_fails(&output, 4, &["not exported"]);
    let train = |settings: &str, parts: &[&str]| {
        place.fails(&format!("train tiny.toml --out other {settings}"), 2, parts);
    };
    let words = "--set corpus.unit=word --set model.output";
    train(
        &format!("{words}={{kind=\"adaptive\",cutoffs=[5,3]}}"),
        &["model.output.cutoffs is [5, 3]", "numbers that rise", "the vocabulary has"],
    );
    train(&format!("{words}={{kind=\"adaptive\",cutoffs=[4000]}}"), &["model.output.cutoffs is [4000]"]);
    train(
        &format!("{words}={{kind=\"adaptive\",cutoffs=[2,4,6],div_value=4}}"),
        &["the vectors of tail 1 would have 8 / 4^2 numbers", "less than 1"],
    );
    train(
        &format!("{words}={{kind=\"adaptive\",tied=true,cutoffs=[2],div_value=2}}"),
        &[
            "model.output.tied with model.output.kind = \"adaptive\" needs model.embedding.kind = \"adaptive\"",
        ],
    );
    train(&format!("{words}={{kind=\"char-cnn\"}}"), &["it needs model.embedding.kind = \"char-cnn\""]);
    train(
        "--set model.output.correction=3",
        &["model.output.correction is for model.output.kind = \"char-cnn\""],
    );
    let tables = "--set model.embedding={kind=\"adaptive\",cutoffs=[3],div_value=2}";
    train(
        &format!("{tables} {words}.tied=true"),
        &["only model.output.kind = \"adaptive\" can be tied to it"],
    );
    train(
        &format!("{tables} {words}={{kind=\"adaptive\",tied=true,cutoffs=[4],div_value=2}}"),
        &["model.output.cutoffs and div_value are [4] and 2, the embedding's [3] and 2"],
    );
    train(
        &format!(
            "{tables} --set model.embedding.size=4 {words}={{kind=\"adaptive\",tied=true,cutoffs=[3],div_value=2}}"
        ),
        &["a tied output needs an embedding of the hidden size: 4 is not 8"],
    );
    train(
        "--set model.output.cutoffs=[3]",
        &["cutoffs, div_value and head_bias are for model.output.kind = \"adaptive\""],
    );
    train("--set model.output={tied=true,by_word=true}", &["model.output.by_word is for an untied"]);
    train(
        "--set train.loss.kind=sampled",
        &["train.loss.kind = \"sampled\" needs model.output.by_word = true (or a tied output)"],
    );
    train(&format!("{ADAPTIVE} --set train.loss.kind=nce"), &["the output is adaptive"]);
    train(&format!("{SAMPLED} --set train.loss.samples=0"), &["train.loss.samples is 0"]);
    train(
        &format!("{SAMPLED} --set train.fraternal={{}}"),
        &["train.fraternal compares the logits of all words"],
    );
    train(
        &format!("{ADAPTIVE} --set train.fraternal={{}}"),
        &["train.fraternal compares the logits of all words"],
    );
    let two_bytes = |settings: &str, what: &str| {
        train(&format!("{WORDS} {TWO_BYTES} {settings}"), &["train.tables = \"f16\"", what]);
    };
    two_bytes("--set train.loss.kind=exact", "any other loss reads the whole table");
    two_bytes("--set train.loss.samples=100000", "train.loss.samples is not below all");
    two_bytes("--set train.optimizer=adam --set train.accumulator=element", "change every row in every step");
    two_bytes("--set train.weight_decay=1e-4", "change every row in every step");
    two_bytes("--set train.averaging.kind=ema", "train.averaging");
    two_bytes("--set train.update=output-bias", "train.update");
    two_bytes("--precision f64", "in f32 or bf16");
    train(
        "--set train.initial_accumulator=0.5",
        &["train.initial_accumulator is for train.optimizer = \"adagrad\""],
    );
    train(
        "--set train.accumulator=row",
        &["train.accumulator = \"row\" is for train.optimizer = \"adagrad\""],
    );
    train("--set train.clip.core=1", &["train.clip clips each part", "wanted one of them"]);
    train(
        "--set model.core={kind=\"lstm\",hidden_size=8,projection=0}",
        &["model.core.projection is 0, wanted 1 or more"],
    );
}

#[test]
fn a_vocabulary_that_is_not_sorted_is_refused_and_one_of_a_checkpoint_is_trusted() {
    let place = Place::new();
    // Characters go by their code points.
    place.fails(
        &format!("train tiny.toml --out other {SAMPLED}"),
        2,
        &[
            "train.loss.kind = \"sampled\" needs a vocabulary sorted by falling frequency",
            "times in the training text",
        ],
    );
    place.train(&format!("--out plain {WORDS} --max-steps 2 --set model.output.by_word=true"));
    place.train(&format!("--out sorted {WORDS} {ADAPTIVE} --max-steps 2"));
    place.write("other.txt", "question question question To To be be be be\n".repeat(40));
    place.fails(
        &format!(
            "train tiny.toml --out other --corpus other.txt --init-from plain {WORDS} {SAMPLED} --max-steps 2"
        ),
        2,
        &["needs a vocabulary sorted by falling frequency", "times in the training text"],
    );
    place.train(&format!(
        "--out goes-on --corpus other.txt --init-from sorted {WORDS} {ADAPTIVE} --max-steps 2"
    ));
    // Where the order does not matter, a sorted vocabulary is one like any other.
    place.train(&format!("--out sampled {WORDS} {SAMPLED} --max-steps 2"));
    place.train(&format!("--out exact --corpus other.txt --init-from sampled {WORDS} --max-steps 2"));
    assert_eq!(place.json("exact/config.json").get("sorted_by_frequency"), None);
    // An unsorted flag does not matter where the words are sorted after all.
    place.train(&format!("--out found --init-from plain {WORDS} {SAMPLED} --max-steps 2"));
    // What is trained is held against what the checkpoint lends, not against the recipe that it takes the place of.
    let text = "train text --corpus corpus.txt";
    let sampled = "--set train.loss={kind=\"sampled\",samples=4}";
    let output = place.rhn(&format!("{text} --out lent --init-from plain {sampled} --max-steps 2"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    place.json_of("eval lent --json");
    let output = place.rhn(&format!("{text} --out lent --resume {sampled} --max-steps 3"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = place.rhn(&format!("{text} --out new --resume {sampled} --max-steps 3"));
    assert_fails(&output, 2, &["needs model.output.by_word = true"]); // of a run that is not there yet
    place.fails(
        &format!(
            "{text} --out none --init-from sorted --set train.fraternal={{}} --set train.dropout.output=0.2"
        ),
        2,
        &["train.fraternal compares the logits of all words"],
    );
    place.fails(
        &format!("{text} --out none --init-from sorted {sampled}"),
        2,
        &["train.loss.kind = \"sampled\"", "the output is adaptive"],
    );
    assert!(!place.path("none").exists());
    place.fails(
        &format!("train tiny.toml --out grown --corpus other.txt --init-from sorted --grow-vocab {WORDS} {ADAPTIVE}"),
        2,
        &["--grow-vocab puts new words behind all others"],
    );
}
