//! Fetching a corpus: a loopback server stands for the network.

#[path = "../support/loopback.rs"]
mod loopback;

use super::{MINI, assert_nothing_kept, mini, refused, registry, zipped};
use loopback::{Answer, Server};
use rhn::data::fetch::sha256;
use rhn::data::{Corpus, Places};
use rhn::error::Error;
use tempfile::TempDir;

fn from_server(answers: Vec<(&'static str, Answer)>, path: &str) -> (Result<Corpus, Error>, TempDir, Server) {
    let server = Server::start(answers);
    let store = tempfile::tempdir().unwrap();
    let registry = registry(MINI, None, &format!("{}{path}", server.address));
    let result = mini(&Places::only(store.path(), registry));
    (result, store, server)
}

#[test]
fn a_corpus_is_fetched_once_and_kept() {
    let (result, store, server) = from_server(vec![("/mini", Answer::File(MINI.to_vec()))], "/mini");
    assert_eq!(result.unwrap().sha256, sha256(MINI));
    assert_eq!(std::fs::read(store.path().join("mini/mini")).unwrap(), MINI);
    let again = mini(&Places::only(store.path(), registry(MINI, None, &server.address)));
    assert!(again.is_ok());
    assert_eq!(server.requests(), 1);
}

#[test]
fn an_archive_is_fetched_and_unpacked() {
    let zip = zipped(MINI);
    let server = Server::start(vec![("/mini.zip", Answer::File(zip.clone()))]);
    let store = tempfile::tempdir().unwrap();
    let registry = registry(MINI, Some(&zip), &format!("{}/mini.zip", server.address));
    assert_eq!(mini(&Places::only(store.path(), registry)).unwrap().sha256, sha256(MINI));
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
    assert!(mini(&Places::only(store.path(), registry(MINI, None, &urls))).is_ok());
    assert_eq!(server.requests(), 2);
}

#[test]
fn other_kinds_of_addresses_are_refused() {
    for url in ["file:///etc/hostname", "ftp://127.0.0.1/mini", "hf://datasets/../x/y"] {
        let places = Places::only(tempfile::tempdir().unwrap().path(), registry(MINI, None, url));
        refused(mini(&places), &[url, "wanted"]);
    }
}
