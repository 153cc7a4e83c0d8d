//! Lines that are scored each by itself.

use crate::one_text::{rows, trained};
use crate::support::run::{stderr, stdout};
use candle_core::{Device, Tensor};
use rhn::data::Tokenizer;
use rhn::storage::{load_tensors, save_tensors};
use serde_json::Value;

#[test]
fn a_line_by_itself_has_the_same_score_wherever_it_stands() {
    let place = trained(&["char", "word", "byte", "bpe"]);
    place.write("lines.txt", "the mill .\na lamp\n    the\nthe mill .\n\na lamp\nthe mill .\n");
    for unit in ["char", "word", "byte", "bpe"] {
        let lines =
            rows(&place, &format!("score {unit} lines.txt --reset line --per line --json --precision f64"));
        let score = |line: usize| lines[line - 1]["surprisal"].as_f64().unwrap();
        assert_eq!([score(1), score(2)], [score(4), score(6)], "{unit}");
        assert_eq!(score(1), score(7), "{unit}");
        let running = rows(&place, &format!("score {unit} lines.txt --per line --json --precision f64"));
        assert_ne!(running[3]["surprisal"], lines[3]["surprisal"], "{unit}");
    }
}

#[test]
fn lines_read_side_by_side_have_the_bits_that_each_has_in_a_file_of_its_own() {
    let place = trained(&["char", "word", "bpe"]);
    let long = "the old lamp holds a river ".repeat(200); // more than is read beside others
    let lines = [
        "the mill .",
        "",
        "a ☃ lamp\r",
        "    the",
        &long,
        "the old mill holds a river .",
        "\u{3000}",
        "a lamp",
    ];
    let files: Vec<String> = (0..lines.len()).map(|at| format!("line-{at}.txt")).collect();
    lines.iter().zip(&files).for_each(|(line, file)| place.write(file, format!("{line}\n")));
    place.write("lines.txt", lines.join("\n") + "\n");
    for unit in ["char", "word", "bpe"] {
        for per in ["token", "word --boundary trailing"] {
            let score = |files: &str| {
                let found = rows(&place, &format!("score {unit} {files} --reset line --per {per} --json"));
                let number = |row: &Value| row["surprisal"].as_f64().map(f64::to_bits);
                found.iter().filter(|row| row["event"].is_null()).map(number).collect::<Vec<_>>()
            };
            let wanted: Vec<_> = files.iter().flat_map(|file| score(file)).collect();
            assert!(wanted.len() > 200);
            assert_eq!(score("lines.txt"), wanted, "{unit} {per}");
        }
    }
    place.write("bad.txt", [b"the mill .\na lamp\nthe \xff\n" as &[u8], b"a lamp\n"].concat());
    let output = place.rhn("score word bad.txt --reset line --per line");
    assert!(output.status.code() != Some(0) && stdout(&output).lines().count() == 3, "{}", stdout(&output));
}

#[test]
fn lines_before_one_that_cannot_be_scored_are_written() {
    let place = trained(&["char"]);
    let file = place.path("char/model.safetensors");
    let mut tensors = load_tensors(&file, &std::fs::read(&file).unwrap(), &Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&place.path("char/tokenizer.json")).unwrap();
    let w = tokenizer.words().iter().position(|word| word == "w").unwrap();
    // After a w all units are 1, and a logit is the sum of four of 3e38.
    let mut change = |name: &str, to: &dyn Fn(usize, usize, f32) -> f32| {
        let rows = tensors[name].to_vec2::<f32>().unwrap().into_iter().enumerate();
        let rows = rows.map(|(i, row)| row.into_iter().enumerate().map(|(j, x)| to(i, j, x)).collect());
        let changed = Tensor::new(rows.collect::<Vec<Vec<f32>>>(), &Device::Cpu).unwrap();
        tensors.insert(name.into(), changed);
    };
    change("embedding.weight", &|id, at, x| match at {
        0 if id == w => 1e9,
        0 => 0.0,
        _ => x,
    });
    change("core.0.input.weight", &|at, _, x| if at == 0 { 1.0 } else { x });
    change("output.weight", &|_, id, x| if id == 0 { 3e38 } else { x });
    std::fs::write(&file, save_tensors(&tensors).unwrap()).unwrap();
    std::fs::remove_file(place.path("char/manifest.json")).unwrap();
    place.write("lines.txt", "the mill .\na lamp\n\nthe new one\na lamp\n");
    let output = place.rhn("score char lines.txt --reset line --per line --threads 1");
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 4, "{}", stdout(&output));
}
