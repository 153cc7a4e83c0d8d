//! Fetching a corpus: a loopback server stands for the network.

use super::{MINI, assert_nothing_kept, folder, mini, refused, registry, zipped};
use crate::support::loopback;
use loopback::{Answer, Server};
use rhn::data::{Corpus, DataDirectories};
use rhn::digest::sha256;
use rhn::error::Error;
use rhn::hub::Timeouts;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn from_server(answers: Vec<(&'static str, Answer)>, path: &str) -> (Result<Corpus, Error>, TempDir, Server) {
    let server = Server::start(answers);
    let store = tempfile::tempdir().unwrap();
    let registry = registry(MINI, None, &format!("{}{path}", server.address));
    let result = mini(&DataDirectories::only(store.path(), registry));
    (result, store, server)
}

#[test]
fn a_corpus_is_fetched_once_and_kept() {
    let (result, store, server) = from_server(vec![("/mini", Answer::File(MINI.to_vec()))], "/mini");
    assert_eq!(result.unwrap().sha256, sha256(MINI));
    assert_eq!(std::fs::read(store.path().join("mini/mini")).unwrap(), MINI);
    let again = mini(&DataDirectories::only(store.path(), registry(MINI, None, &server.address)));
    assert!(again.is_ok());
    assert_eq!(server.requests(), 1);
}

#[test]
fn an_archive_is_fetched_and_unpacked() {
    let zip = zipped(MINI);
    let server = Server::start(vec![("/mini.zip", Answer::File(zip.clone()))]);
    let store = tempfile::tempdir().unwrap();
    let registry = registry(MINI, Some(&zip), &format!("{}/mini.zip", server.address));
    assert_eq!(mini(&DataDirectories::only(store.path(), registry)).unwrap().sha256, sha256(MINI));
}

#[test]
fn a_redirect_is_followed() {
    let answers = vec![("/old", Answer::Redirect("/mini")), ("/mini", Answer::File(MINI.to_vec()))];
    assert!(from_server(answers, "/old").0.is_ok());
}

#[test]
fn redirects_without_end_are_given_up() {
    let (result, store, server) = from_server(vec![("/mini", Answer::Redirect("/mini"))], "/mini");
    refused(result, &["redirect"]);
    assert!(server.requests() <= 6);
    assert_nothing_kept(&store);
}

#[test]
fn fetched_content_with_another_hash_is_refused_and_not_kept() {
    let mut other = MINI.to_vec();
    other[3] ^= 1;
    let (result, store, _) = from_server(vec![("/mini", Answer::File(other.clone()))], "/mini");
    refused(result, &["http://127.0.0.1", &sha256(&other), &sha256(MINI), "rhn data fetch mini --from"]);
    assert_nothing_kept(&store);
}

#[test]
fn a_body_that_breaks_off_is_refused_and_not_kept() {
    let (result, store, _) = from_server(vec![("/mini", Answer::Short(MINI.to_vec()))], "/mini");
    refused(result, &["broke off after 18 of 37 bytes"]);
    assert_nothing_kept(&store);
}

#[test]
fn a_missing_file_is_named_with_its_address() {
    let (result, store, server) = from_server(vec![], "/mini");
    refused(result, &["404", &server.address, "/mini"]);
    assert_nothing_kept(&store);
}

#[test]
fn a_body_longer_than_the_file_is_left() {
    let (result, store, _) = from_server(vec![("/mini", Answer::Endless)], "/mini");
    refused(result, &["more than the 37 bytes"]);
    assert_nothing_kept(&store);
    let long = Answer::File(vec![b'x'; 1_000_000]);
    refused(from_server(vec![("/mini", long)], "/mini").0, &["is 1000000 bytes, wanted 37"]);
}

#[test]
fn the_next_address_is_tried_when_the_first_fails() {
    let server = Server::start(vec![("/mini", Answer::File(MINI.to_vec()))]);
    let urls = format!("{0}/gone\", \"{0}/mini", server.address);
    let store = tempfile::tempdir().unwrap();
    assert!(mini(&DataDirectories::only(store.path(), registry(MINI, None, &urls))).is_ok());
    assert_eq!(server.requests(), 2);
}

#[test]
fn other_kinds_of_addresses_are_refused() {
    for url in ["file:///etc/hostname", "ftp://127.0.0.1/mini", "hf://datasets/../x/y"] {
        let directories =
            DataDirectories::only(tempfile::tempdir().unwrap().path(), registry(MINI, None, url));
        refused(mini(&directories), &[url, "wanted"]);
    }
}

#[test]
fn a_server_that_is_silent_or_drips_is_given_up() {
    for (answer, parts) in [
        (Answer::Silence, ["/mini", "timeout"]),
        (Answer::Drip(MINI.to_vec()), ["broke off after", "timeout"]),
    ] {
        let server = Server::start(vec![("/mini", answer)]);
        let store = tempfile::tempdir().unwrap();
        let registry = registry(MINI, None, &format!("{}/mini", server.address));
        let [connect, answer, body] = [300; 3].map(Duration::from_millis);
        let timeouts = Timeouts { connect, answer, body };
        let start = Instant::now();
        refused(mini(&DataDirectories { timeouts, ..DataDirectories::only(store.path(), registry) }), &parts);
        assert!(start.elapsed() < Duration::from_millis(1500));
        assert_nothing_kept(&store);
    }
}

#[test]
fn redirects_to_other_kinds_of_addresses_are_not_followed() {
    for to in ["file:///etc/hostname", "ftp://127.0.0.1/mini", "data:,x", "//\0", "gopher://x"] {
        let (result, store, server) = from_server(vec![("/mini", Answer::Redirect(to))], "/mini");
        refused(result, &[&server.address, "cannot be fetched"]);
        assert_nothing_kept(&store);
    }
}

/// As `gzip` packs it, made from what a zip archive of it holds.
fn gzipped(content: &[u8]) -> Vec<u8> {
    let zip = zipped(content);
    let central = zip.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    let number = |at: usize| u32::from_le_bytes(zip[at..at + 4].try_into().unwrap());
    let short = |at: usize| usize::from(u16::from_le_bytes(zip[at..at + 2].try_into().unwrap()));
    let start = 30 + short(26) + short(28);
    let packed = &zip[start..start + number(central + 20) as usize];
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = (content.len() as u32).to_le_bytes();
    [&head[..], packed, &number(central + 16).to_le_bytes(), &length].concat()
}

#[test]
fn a_packed_body_that_unpacks_to_more_than_the_file_is_left() {
    let bomb = gzipped(&vec![b'x'; 50_000_000]);
    assert!(bomb.len() < 100_000);
    let (result, store, _) = from_server(vec![("/mini", Answer::Gzip(bomb))], "/mini");
    refused(result, &["more than the 37 bytes"]);
    assert_nothing_kept(&store);
}

#[test]
fn what_a_killed_transfer_left_is_removed_by_the_next() {
    let server = Server::start(vec![("/mini", Answer::File(MINI.to_vec()))]);
    let store = folder(&[("mini/.mini.4000000.part", b"half"), ("mini/.other.4000000.part", b"not ours")]);
    let registry = registry(MINI, None, &format!("{}/mini", server.address));
    assert!(mini(&DataDirectories::only(store.path(), registry)).is_ok());
    let mut names: Vec<_> = std::fs::read_dir(store.path().join("mini"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".other.4000000.part", "mini"]);
}
