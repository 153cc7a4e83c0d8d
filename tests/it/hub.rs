//! `hf://` checkpoints, from a loopback server that stands for the hub.
#![cfg(feature = "hub")]

use crate::support::{checkpoint_files, hub_server};
use candle_core::{DType, Device};
use checkpoint_files::{expected, files};
use hub_server::{COMMIT, HubServer, Reply};
use rhn::checkpoint::Checkpoint;
use rhn::checkpoint::fetch::fetch;
use rhn::digest::sha256;
use rhn::error::{Error, Result};
use rhn::hub::{Address, Settings, Timeouts, dataset_file_from};
use rhn::storage::{CONFIG, MANIFEST, MODEL, Manifest, TOKENIZER};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// What the hub answers for a checkpoint whose weights all are `value`.
fn replies(value: f32) -> BTreeMap<String, Reply> {
    let mut files = files(value);
    files.push((MANIFEST, Manifest::of(&files).to_json()));
    let reply = |(index, (name, bytes)): (usize, (&str, Vec<u8>))| {
        let etag = match Manifest::of(&[(name, bytes.clone())]).get(name) {
            Some(record) if name == MODEL => record.sha256.clone(), // large files are named by their content's hash
            _ => format!("{:040x}", index * 1000 + value as usize),
        };
        (name.to_string(), Reply::new(bytes, &etag))
    };
    files.into_iter().enumerate().map(reply).collect()
}

/// No longer than a test can wait.
const HURRIED: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(5),
    body: Duration::from_millis(400),
};

struct Hub {
    server: HubServer,
    cache: TempDir,
}

impl Hub {
    fn new(change: impl FnOnce(&mut BTreeMap<String, Reply>)) -> Self {
        let mut files = replies(1.0);
        change(&mut files);
        Self { server: HubServer::start(files), cache: tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        let cache = self.cache.path().join("hub");
        Settings {
            endpoint: self.server.endpoint.clone(),
            cache,
            token: None,
            offline: false,
            timeouts: HURRIED,
        }
    }

    fn fetch(&self, address: &str) -> Result<PathBuf> {
        fetch(&Address::model(address)?, &self.settings())
    }

    /// Refused for this reason, with nothing left that looks like a checkpoint or lies outside the cache.
    fn assert_refused(&self, name: &str, reason: &str) {
        let error = self.fetch("hf://owner/name").unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error}");
        let message = error.to_string();
        assert!(message.contains("hf://owner/name@main") && message.contains(reason), "{message}");
        assert!(!self.snapshot().join(name).exists(), "{name} got its name");
        assert!(!self.repository().join("refs/main").exists());
        let outside = std::fs::read_dir(self.cache.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name() != "hub");
        assert_eq!(outside.count(), 0);
    }

    fn repository(&self) -> PathBuf {
        self.cache.path().join("hub/models--owner--name")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }
}

fn value(directory: &Path) -> f32 {
    let checkpoint = Checkpoint::open(directory).unwrap();
    let weights = checkpoint.weights(&expected(), DType::F32, &Device::Cpu).unwrap();
    weights["output.bias"].to_vec1::<f32>().unwrap()[0]
}

#[test]
fn a_checkpoint_arrives_in_the_layout_that_other_tools_use() {
    let hub = Hub::new(|_| {});
    let directory = hub.fetch("hf://owner/name").unwrap();
    assert_eq!(directory, hub.snapshot());
    assert_eq!(value(&directory), 1.0);
    assert!(Checkpoint::open(&directory).unwrap().verified);
    assert_eq!(std::fs::read_to_string(hub.repository().join("refs/main")).unwrap(), COMMIT);
    let link = std::fs::read_link(directory.join(MODEL)).unwrap();
    assert!(link.starts_with("../../blobs"), "{link:?}");
}

#[test]
fn only_named_files_are_asked_for_and_all_from_one_commit() {
    let hub = Hub::new(|files| drop(files.insert("evil.py".into(), Reply::new(b"x".to_vec(), "abcdef01"))));
    hub.fetch("hf://owner/name@refs/pr/5").unwrap();
    let requests = hub.server.requests.lock().unwrap();
    assert!(requests[0].starts_with("GET /owner/name/resolve/refs%2Fpr%2F5/config.json "), "{requests:?}");
    let prefix = format!("GET /owner/name/resolve/{COMMIT}/");
    assert!(requests[1..].iter().all(|request| request.starts_with(&prefix)), "{requests:?}");
    assert!(!requests.iter().any(|request| request.contains("evil")));
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again_unless_it_is_damaged() {
    let hub = Hub::new(|_| {});
    let directory = hub.fetch("hf://owner/name").unwrap();
    let before = hub.server.requests.lock().unwrap().len();
    hub.fetch("hf://owner/name").unwrap();
    let questions = hub.server.requests.lock().unwrap().len() - before;
    assert_eq!(questions, 8, "the commit and seven files were asked for, no body");
    std::fs::write(directory.join(MODEL), "damaged").unwrap();
    assert_eq!(value(&hub.fetch("hf://owner/name").unwrap()), 1.0);
    // Of the length that it should have, as the manifest alone can tell.
    for name in [CONFIG, TOKENIZER] {
        let mut bytes = std::fs::read(directory.join(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(directory.join(name), bytes).unwrap();
        assert!(Checkpoint::open(&directory).is_err());
        assert!(Checkpoint::open(&hub.fetch("hf://owner/name").unwrap()).unwrap().verified, "{name}");
    }
}

#[test]
fn a_moved_branch_brings_the_newer_version() {
    let hub = Hub::new(|_| {});
    hub.fetch("hf://owner/name").unwrap();
    let mut newer = replies(2.0);
    newer.values_mut().for_each(|reply| reply.commit = "f".repeat(40));
    *hub.server.files.lock().unwrap() = newer;
    let directory = hub.fetch("hf://owner/name").unwrap();
    assert!(directory.ends_with("f".repeat(40)));
    assert_eq!((value(&directory), value(&hub.snapshot())), (2.0, 1.0));
}

#[test]
fn a_large_file_comes_from_another_host_which_is_not_shown_the_key() {
    let hub = Hub::new(|files| files.get_mut(MODEL).unwrap().elsewhere = true);
    let settings = Settings { token: Some("secret".into()), ..hub.settings() };
    let directory = fetch(&Address::model("hf://owner/name").unwrap(), &settings).unwrap();
    assert_eq!(value(&directory), 1.0);
    let requests = hub.server.requests.lock().unwrap();
    let elsewhere = |request: &&String| request.starts_with("GET /elsewhere/");
    let keyed = |request: &&String| request.ends_with("+key");
    assert_eq!(requests.iter().filter(elsewhere).count(), 2, "{requests:?}"); // its length and its bytes
    assert!(requests.iter().all(|request| elsewhere(&request) != keyed(&request)), "{requests:?}");
}

#[test]
fn offline_only_the_cache_counts() {
    let hub = Hub::new(|_| {});
    let offline = Settings { offline: true, endpoint: "http://127.0.0.1:9".into(), ..hub.settings() };
    let of = |text: &str| Address::model(text).unwrap();
    let error = fetch(&of("hf://owner/name"), &offline).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    hub.fetch("hf://owner/name").unwrap();
    assert_eq!(value(&fetch(&of("hf://owner/name"), &offline).unwrap()), 1.0);
    assert_eq!(value(&fetch(&of(&format!("hf://owner/name@{COMMIT}")), &offline).unwrap()), 1.0);
    fetch(&of("hf://owner/other"), &offline).unwrap_err();
}

#[test]
fn a_file_that_is_not_what_the_manifest_says_is_refused() {
    let wrong = replies(2.0).remove(MODEL).unwrap();
    let hub = Hub::new(|files| drop(files.insert(MODEL.into(), wrong)));
    hub.assert_refused(MODEL, "model.safetensors: is damaged");
}

#[test]
fn a_file_that_is_not_what_its_name_in_the_cache_says_is_refused() {
    let hub = Hub::new(|files| {
        files.remove(MANIFEST);
        files.get_mut(MODEL).unwrap().body[100] ^= 1;
    });
    hub.assert_refused(MODEL, "model.safetensors arrived damaged");
}

#[test]
fn a_short_body_is_refused() {
    let short = |announced: bool| {
        Hub::new(move |files| {
            let reply = files.get_mut(TOKENIZER).unwrap();
            reply.sent -= 1;
            if announced {
                reply.length -= 1;
            }
        })
    };
    short(false).assert_refused(TOKENIZER, "tokenizer.json could not be fetched");
    short(true).assert_refused(TOKENIZER, "tokenizer.json: is truncated");
}

#[test]
fn a_repository_without_the_needed_files_is_refused() {
    for name in ["config.json", MODEL, TOKENIZER] {
        Hub::new(|files| drop(files.remove(name))).assert_refused(name, &format!("has no {name}"));
    }
    let hub =
        Hub::new(|files| files.retain(|name, _| ["config.json", MODEL, TOKENIZER].contains(&name.as_str())));
    let directory = hub.fetch("hf://owner/name").unwrap();
    assert!(!Checkpoint::open(&directory).unwrap().verified);
}

#[test]
fn names_from_the_server_that_leave_the_cache_are_refused() {
    for bad in ["../../../evil", "/tmp/evil", "..", "a/b", ""] {
        let by_etag = Hub::new(|files| files.get_mut(TOKENIZER).unwrap().etag = bad.into());
        by_etag.assert_refused(TOKENIZER, "no hash");
        let by_commit = Hub::new(|files| files.values_mut().for_each(|reply| reply.commit = bad.into()));
        by_commit.assert_refused(MODEL, "no hash");
        assert!(!by_commit.repository().exists());
    }
}

#[test]
fn a_manifest_that_names_files_elsewhere_is_refused() {
    let manifest = br#"{"format":1,"files":{"../../x":{"bytes":1,"sha256":""}}}"#.to_vec();
    let hub = Hub::new(|files| drop(files.insert(MANIFEST.into(), Reply::new(manifest, "abcdef01"))));
    let error = hub.fetch("hf://owner/name").unwrap_err();
    assert!(
        matches!(error, Error::Checkpoint { .. }) && error.to_string().contains("no plain file name"),
        "{error}"
    );
}

#[test]
fn a_hub_that_does_not_answer_is_named() {
    let hub = Hub::new(|_| {});
    let nobody = Settings { endpoint: "http://127.0.0.1:9".into(), ..hub.settings() };
    let error = fetch(&Address::model("hf://owner/name").unwrap(), &nobody).unwrap_err().to_string();
    assert!(error.contains("http://127.0.0.1:9") && error.contains("HF_HUB_OFFLINE=1"), "{error}");
}

#[test]
fn a_body_that_drips_is_given_up() {
    let hub = Hub::new(|files| files.get_mut(TOKENIZER).unwrap().drips = true);
    let start = Instant::now();
    hub.assert_refused(TOKENIZER, "tokenizer.json could not be fetched");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn redirects_to_other_kinds_of_addresses_are_not_followed() {
    for to in ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "javascript:x", "\\\\host\\share"] {
        let hub = Hub::new(|files| files.get_mut(MODEL).unwrap().leads_to = Some(to));
        hub.assert_refused(MODEL, "model.safetensors could not be fetched");
    }
}

#[test]
fn a_file_with_more_bytes_than_one_of_its_name_can_have_is_not_begun() {
    let hub = Hub::new(|files| files.get_mut(TOKENIZER).unwrap().length = 1 << 40);
    hub.assert_refused(TOKENIZER, "has 1099511627776 bytes, too many to read");
}

const TEXT: &[u8] = b"a text of a data set\n";

/// A hub with a data set of one file, which may misbehave.
fn data_set(change: impl FnOnce(&mut Reply)) -> Hub {
    let mut reply = Reply::new(TEXT.to_vec(), &sha256(TEXT));
    change(&mut reply);
    Hub { server: HubServer::start([("text.txt".to_string(), reply)].into()), cache: tempdir().unwrap() }
}

impl Hub {
    fn fetch_text(&self) -> Result<PathBuf> {
        let address = Address::dataset_file("hf://datasets/owner/name/raw/text.txt").unwrap();
        dataset_file_from(&address, &self.settings())
    }

    /// Refused for this reason, with nothing kept.
    #[track_caller]
    fn assert_no_text(&self, reason: &str) {
        let error = self.fetch_text().unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        let message = error.to_string();
        assert!(
            message.contains("hf://datasets/owner/name/raw/text.txt") && message.contains(reason),
            "{message}"
        );
        let root = self.cache.path().join("hub/datasets--owner--name");
        assert!(!root.join("snapshots").exists() && !root.join("refs").exists(), "{message}");
        let blobs = std::fs::read_dir(root.join("blobs")).into_iter().flatten();
        assert_eq!(blobs.count(), 0, "{message}");
        let others = std::fs::read_dir(self.cache.path()).unwrap();
        assert!(others.flatten().all(|entry| entry.file_name() == "hub"), "{message}");
    }
}

#[test]
fn a_file_of_a_data_set_arrives_once_in_the_layout_that_other_tools_use() {
    let hub = data_set(|_| {});
    let path = hub.fetch_text().unwrap();
    let root = hub.cache.path().join("hub/datasets--owner--name");
    assert_eq!(path, root.join("snapshots").join(COMMIT).join("raw/text.txt"));
    assert_eq!(std::fs::read(&path).unwrap(), TEXT);
    assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("../../../blobs").join(sha256(TEXT)));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let requests = hub.server.requests.lock().unwrap().clone();
    assert!(requests[0].starts_with("GET /datasets/owner/name/resolve/main/raw/text.txt "), "{requests:?}");
    assert_eq!(hub.fetch_text().unwrap(), path);
    assert_eq!(hub.server.requests.lock().unwrap().len(), requests.len());
}

#[test]
fn a_file_of_a_data_set_that_is_not_what_the_hub_says_is_refused_and_not_kept() {
    data_set(|reply| reply.body[3] ^= 1).assert_no_text("SHA-256");
    data_set(|reply| reply.sent -= 1).assert_no_text("broke off");
    data_set(|reply| reply.drips = true).assert_no_text("broke off");
    data_set(|reply| reply.leads_to = Some("file:///etc/hostname")).assert_no_text("cannot be fetched");
    data_set(|reply| reply.length = 1 << 40).assert_no_text("at most 68719476736 are fetched");
    for bad in ["../../../evil", "/tmp/evil", "..", "a/b", ""] {
        data_set(|reply| reply.etag = bad.into()).assert_no_text("no hash");
        data_set(|reply| reply.commit = bad.into()).assert_no_text("no hash");
    }
}

#[test]
fn offline_a_file_of_a_data_set_comes_from_the_cache_or_not_at_all() {
    let hub = data_set(|_| {});
    let offline = Settings { offline: true, endpoint: "http://127.0.0.1:9".into(), ..hub.settings() };
    let file = Address::dataset_file("hf://datasets/owner/name/raw/text.txt").unwrap();
    assert!(dataset_file_from(&file, &offline).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
    let path = hub.fetch_text().unwrap();
    assert_eq!(dataset_file_from(&file, &offline).unwrap(), path);
}
