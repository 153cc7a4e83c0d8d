//! `rhn compress` and `rhn decompress` from outside: one file for every number of threads, a file from long ago, what is
//! refused before anything is written.

use crate::support::run::{PLAY, Place, assert_fails, signal, stderr, stdout, wait_until};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A text that the model of `tests/formats/1` reads but for some of its bytes.
const TEXT: &str = "tests/compressed/text.txt";

/// That text, compressed by that model: it must be decompressed for ever, or [`rhn::compress`] says by which version.
const GOLDEN: &str = "tests/compressed/1.rhn";

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `rhn ARGS…`, in which MODEL is the checkpoint of `tests/formats/1`.
fn rhn(place: &Place, args: &str) -> std::process::Output {
    place.rhn(&args.replace("MODEL", repository("tests/formats/1").to_str().unwrap()))
}

#[track_caller]
fn done(place: &Place, args: &str) -> String {
    let output = rhn(place, args);
    assert_eq!(output.status.code(), Some(0), "{args}: {}", stderr(&output));
    stdout(&output)
}

fn read(place: &Place, name: &str) -> Vec<u8> {
    fs::read(place.path(name)).unwrap()
}

#[test]
fn a_file_of_each_format_is_decompressed_to_its_text_and_made_again() {
    let place = Place::new();
    let golden = repository(GOLDEN);
    let text = repository(TEXT);
    for threads in 1..=3 {
        let threads = format!("--threads {threads}");
        done(&place, &format!("decompress MODEL {} --out text.txt {threads}", golden.display()));
        assert!(read(&place, "text.txt") == fs::read(&text).unwrap());
        done(&place, &format!("compress MODEL {} --out text.rhn --rows 3 {threads}", text.display()));
        assert!(
            read(&place, "text.rhn") == fs::read(&golden).unwrap(),
            "another file than before: {threads}"
        );
    }
}

#[test]
fn so_is_one_of_the_model_that_comes_with_the_program() {
    let place = Place::new();
    let golden = repository("tests/compressed/1-shakespeare.rhn"); // by a trained model, some of whose units saturate
    let model = repository("checkpoints/shakespeare");
    let text = repository(TEXT);
    let output = place.rhn(&format!("decompress {} {} --out text.txt", model.display(), golden.display()));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(read(&place, "text.txt") == fs::read(&text).unwrap());
    place.rhn(&format!("compress {} {} --out text.rhn --rows 4", model.display(), text.display()));
    assert!(read(&place, "text.rhn") == fs::read(&golden).unwrap(), "another file than before");
}

#[test]
fn a_summary_says_what_went_in_and_came_out() {
    let place = Place::new();
    place.write("play.txt", PLAY.repeat(40));
    let found: Value =
        serde_json::from_str(&done(&place, "compress MODEL play.txt --out p.rhn --json")).unwrap();
    let size = read(&place, "p.rhn").len();
    assert_eq!((&found["bytes_in"], &found["bytes_out"]), (&(44 * 40).into(), &size.into()));
    assert_eq!(found["bits_per_byte"].as_f64().unwrap(), size as f64 * 8.0 / (44.0 * 40.0));
    let ideal = found["ideal_bits"].as_f64().unwrap();
    assert!(ideal < size as f64 * 8.0 && ideal > size as f64 * 8.0 - 8.0 * 100.0, "{found}");
    let back: Value =
        serde_json::from_str(&done(&place, "decompress MODEL p.rhn --out p.txt --json")).unwrap();
    assert_eq!((&back["bytes_in"], &back["bytes_out"]), (&size.into(), &(44 * 40).into()));
    assert_eq!(
        (&back["ideal_bits"], &back["bits_per_byte"]),
        (&found["ideal_bits"], &found["bits_per_byte"])
    );
    let plain = done(&place, "compress MODEL play.txt --out p.rhn");
    assert!(plain.starts_with("1,760 bytes to ") && plain.contains(" bits a byte of text"), "{plain}");
}

#[test]
fn a_name_that_ends_like_a_packed_file_is_taken_as_it_is() {
    let place = Place::new();
    place.write("odd.gz", PLAY);
    done(&place, "compress MODEL odd.gz --out odd.rhn");
    done(&place, "decompress MODEL odd.rhn --out odd.txt");
    assert!(read(&place, "odd.txt") == PLAY.as_bytes());
}

#[test]
fn a_hyphen_is_the_standard_input_and_output() {
    let place = Place::new();
    let model = repository("tests/formats/1").display().to_string();
    let made = place.rhn_reading(&format!("compress {model} - --out - --rows 1"), PLAY.as_bytes());
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stderr(&made).contains("bits a byte of text"), "{}", stderr(&made));
    place.write("play.txt", PLAY);
    done(&place, "compress MODEL play.txt --out play.rhn --rows 1");
    assert!(made.stdout == read(&place, "play.rhn"));
    let back = place.rhn_reading(&format!("decompress {model} - --out -"), &made.stdout);
    assert!(back.stdout == PLAY.as_bytes(), "{}", stderr(&back));
}

#[test]
fn what_cannot_be_done_is_named_and_nothing_is_written() {
    let place = Place::new();
    place.write("empty", "");
    place.write("play.txt", PLAY);
    done(&place, "compress MODEL play.txt --out play.rhn");
    let whole = read(&place, "play.rhn");
    place.write("cut.rhn", &whole[..whole.len() - 1]);
    place.write(
        "flipped.rhn",
        whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 95)).collect::<Vec<_>>(),
    );
    place.write(
        "later.rhn",
        whole.iter().enumerate().map(|(at, byte)| byte ^ (3 * u8::from(at == 4))).collect::<Vec<_>>(),
    );
    for (args, code, parts) in [
        ("compress MODEL missing --out new", 3, ["missing", "cannot be read"]),
        ("compress missing play.txt --out new", 4, ["missing", "does not exist"]),
        ("decompress MODEL play.txt --out new", 3, ["play.txt", "is no file that `rhn compress` wrote"]),
        ("decompress MODEL empty --out new", 3, ["empty", "is no file that `rhn compress` wrote"]),
        ("decompress MODEL cut.rhn --out new", 3, ["cut.rhn", "is truncated"]),
        ("decompress MODEL flipped.rhn --out new", 3, ["flipped.rhn", "is damaged"]),
        ("decompress MODEL later.rhn --out new", 3, ["later.rhn", "has format 2, this program reads 1"]),
    ] {
        let output = rhn(&place, args);
        assert_fails(&output, code, &parts);
        assert!(!place.path("new").exists(), "{args}");
    }
    let shipped = repository("checkpoints/shakespeare");
    let output = rhn(&place, &format!("decompress {} play.rhn --out new", shipped.display()));
    let parts = [
        "is not the model that play.rhn was compressed with",
        "its configuration, its tokenizer, its weights",
    ];
    assert_fails(&output, 4, &parts);
    place.write("kept", "as it was");
    assert_fails(&rhn(&place, "decompress MODEL cut.rhn --out kept"), 3, &["cut.rhn"]);
    assert_eq!(read(&place, "kept"), b"as it was");
    let over = ["is the file that is read", "wanted another"];
    assert_fails(&rhn(&place, "compress MODEL play.txt --out ./play.txt"), 2, &over);
    assert_fails(&rhn(&place, "decompress MODEL play.rhn --out play.rhn"), 2, &over);
    assert!(read(&place, "play.txt") == PLAY.as_bytes() && read(&place, "play.rhn") == whole);
    for rows in ["0", "1025", "x"] {
        assert_eq!(
            rhn(&place, &format!("compress MODEL play.txt --out new --rows {rows}")).status.code(),
            Some(2)
        );
    }
}

#[test]
#[cfg(target_os = "linux")] // which tells what a process listens to
fn a_signal_stops_it_and_leaves_nothing() {
    let place = Place::new();
    place.write("long.txt", PLAY.repeat(100_000));
    let model = repository("tests/formats/1");
    let args = format!("compress {} long.txt --out long.rhn --rows 1 --threads 1", model.display());
    let child = place.command(&args).spawn().unwrap();
    let listens = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
        caught.is_some_and(|mask| u64::from_str_radix(mask, 16).unwrap() & 2 != 0)
    };
    wait_until("it listens", listens);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_fails(&output, 130, &["stopped by a signal"]);
    let left: Vec<_> =
        fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".rhn")), "{left:?}");
}
