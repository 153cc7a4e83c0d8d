//! The parts of a packed run: written one after another, found by the name of any, read as one.

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::storage::aside::Aside;
use crate::storage::disk;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The ending of the list of the parts' hashes.
const HASHES: &str = "sha256";

/// The parts of one packed run, in order, and their hashes where a list has them.
#[derive(Debug)]
pub(crate) struct PartSet {
    pub(crate) paths: Vec<PathBuf>,
    hashes: Option<HashList>,
}

/// The file that lists the parts' hashes, and for each part its SHA-256 and its name.
type HashList = (PathBuf, Vec<(String, String)>);

/// Writes parts of one size; without [`PartWriter::finish`] none is left.
pub(super) struct PartWriter {
    prefix: PathBuf,
    size: u64,
    part: Option<(Aside, PathBuf)>,
    written: u64,
    hash: Sha256,
    done: Vec<(PathBuf, String)>,
    is_finished: bool,
    /// What a write failed with: the standard library's error has no place for it.
    error: Option<Error>,
}

/// `prefix.zip.` and an ending.
fn named(prefix: &Path, ending: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_os_string();
    name.push(".zip.");
    name.push(ending);
    name.into()
}

impl PartWriter {
    /// Fails if any part of that name is there: it would be overwritten, or be taken for one of these.
    pub(super) fn create(prefix: &Path, size: u64) -> Result<Self> {
        let own = named(prefix, HASHES).with_extension("");
        let there = match fs::read_dir(disk::parent(&own)) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => Vec::new(), // no directory yet, or one that cannot be written either
        };
        let is_part = |path: &&PathBuf| {
            path.file_stem() == own.file_name()
                && (number(path).is_some() || path.extension() == Some(HASHES.as_ref()))
        };
        if let Some(path) = there.iter().filter(is_part).min() {
            let what = format!("{}: is there already; --out takes another name", path.display());
            return Err(Error::config(what));
        }
        let hash = Sha256::new();
        let done = Vec::new();
        Ok(Self {
            prefix: prefix.into(),
            size,
            part: None,
            written: 0,
            hash,
            done,
            is_finished: false,
            error: None,
        })
    }

    pub(super) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// The last part and the list of hashes are there when this returns.
    pub(super) fn finish(mut self) -> Result<PartSet> {
        self.end_part()?;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hashes: Vec<_> = self.done.iter().map(|(path, hash)| (hash.clone(), name(path))).collect();
        let lines: String = hashes.iter().map(|(hash, name)| format!("{hash}  {name}\n")).collect();
        let list = named(&self.prefix, HASHES);
        Aside::write(&list, lines.as_bytes())?;
        self.is_finished = true;
        Ok(PartSet {
            paths: self.done.iter().map(|(path, _)| path.clone()).collect(),
            hashes: Some((list, hashes)),
        })
    }

    fn end_part(&mut self) -> Result<()> {
        let Some((part, path)) = self.part.take() else { return Ok(()) };
        part.commit()?;
        self.done.push((path, hex(std::mem::take(&mut self.hash))));
        self.written = 0;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.written == self.size {
            self.end_part()?;
        }
        if self.part.is_none() {
            let path = named(&self.prefix, &format!("{:03}", self.done.len() + 1));
            self.part = Some((Aside::create(&path)?, path));
        }
        let fits = bytes.len().min(usize::try_from(self.size - self.written).unwrap_or(usize::MAX));
        if let Some((part, _)) = &mut self.part {
            part.append(&bytes[..fits])?;
        }
        self.hash.update(&bytes[..fits]);
        self.written += fits as u64;
        Ok(fits)
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(|error| {
            self.error = Some(error);
            io::Error::other("a part cannot be written")
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            for (path, _) in &self.done {
                let _ = disk::remove_file(path); // the first error is the one to report
            }
        }
    }
}

/// The parts that are meant by the names of some or all of them, or of their list of hashes: all that lie beside it.
///
/// # Errors
/// If a name is none of a part, they belong to several runs, or one is missing.
pub(crate) fn find_parts(given: &[PathBuf]) -> Result<PartSet> {
    let stems = given.iter().map(|path| stem(path)).collect::<Result<Vec<_>>>()?;
    let Some(stem) = stems.first() else { return Err(Error::config("no part was named")) };
    if let Some(other) = stems.iter().find(|other| *other != stem) {
        let what = format!(
            "the parts are of two runs, or in two directories: {} and {}; wanted those of one run beside each other",
            stem.display(),
            other.display()
        );
        return Err(Error::config(what));
    }
    let ended = |ending: &str| {
        let mut name = stem.clone().into_os_string();
        name.push(".");
        name.push(ending);
        PathBuf::from(name)
    };
    let numbered = |number: usize| ended(&format!("{number:03}"));
    let hashes = read_hashes(&ended(HASHES))?;
    let listed = hashes.as_ref().map_or(0, |(_, hashes)| hashes.len());
    let last = given.iter().filter_map(|path| number(path)).max().unwrap_or(0).max(listed);
    if let Some((list, _)) = hashes.as_ref().filter(|_| last > listed) {
        let what = format!("is not in {}, which lists {listed}: it is another run's", list.display());
        return Err(Error::checkpoint(numbered(last), what));
    }
    let mut paths = Vec::new();
    for path in (1..=last).map(numbered) {
        if !path.is_file() {
            return Err(Error::checkpoint(path, "is missing; a run is unpacked from all of its parts"));
        }
        paths.push(path); // one after another: a name may have any number
    }
    if listed == 0 {
        paths.extend((last + 1..).map(numbered).take_while(|path| path.is_file()));
    }
    Ok(PartSet { paths, hashes })
}

/// `NAME.zip` of `NAME.zip.001` or `NAME.zip.sha256`.
fn stem(path: &Path) -> Result<PathBuf> {
    let is_list = path.extension().is_some_and(|ending| ending == HASHES);
    let stem = path.with_extension("");
    if (number(path).is_some() || is_list) && stem.extension().is_some_and(|ending| ending == "zip") {
        return Ok(stem);
    }
    let what =
        format!("{}: is called like no part of a packed run, wanted NAME.zip.001 and so on", path.display());
    Err(Error::config(what))
}

/// Of a part, its number.
fn number(path: &Path) -> Option<usize> {
    let ending = path.extension()?.to_str()?;
    let is_number = ending.len() >= 3 && ending.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| ending.parse().ok()).flatten().filter(|&number| number > 0)
}

/// The hash and name of each part, if there is a list.
fn read_hashes(path: &Path) -> Result<Option<HashList>> {
    if !path.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    let file = File::open(path).map_err(Error::io(path))?;
    let read = file.take(64 << 20).read_to_string(&mut text);
    read.map_err(|error| Error::checkpoint(path, format!("cannot be read: {error}")))?;
    let parse = |line: &str| {
        let (hash, name) = line.split_once("  ")?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| (hash.to_ascii_lowercase(), name.to_string()))
    };
    let hashes: Option<Vec<_>> = text.lines().map(parse).collect();
    let hashes = hashes.filter(|hashes| !hashes.is_empty());
    let hashes =
        hashes.ok_or_else(|| Error::checkpoint(path, "is no list of SHA-256 and names, one a line"))?;
    Ok(Some((path.to_path_buf(), hashes)))
}

impl PartSet {
    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> Result<u64> {
        self.paths.iter().map(|path| Ok(fs::metadata(path).map_err(Error::io(path))?.len())).sum()
    }

    /// Refuses a part whose hash is not the listed one, by name.
    pub(super) fn verify(&self) -> Result<()> {
        let Some((list, hashes)) = &self.hashes else { return Ok(()) };
        for (path, (wanted, name)) in self.paths.iter().zip(hashes) {
            if path.file_name().is_none_or(|found| found.to_string_lossy() != *name) {
                return Err(Error::checkpoint(
                    list,
                    format!("has {name:?} in the place of {}", path.display()),
                ));
            }
            let mut file = File::open(path).map_err(Error::io(path))?;
            let found =
                super::copy(&mut file, [path, path], &mut io::sink(), super::BLOCK, &mut |_| Ok(()))?.sha256;
            if found != *wanted {
                return Err(Error::checkpoint(
                    path,
                    format!("has SHA-256 {found}, wanted {wanted}: it is damaged"),
                ));
            }
        }
        Ok(())
    }
}

/// All parts as one file.
pub(super) struct PartReader {
    /// Each part with the place of its first byte.
    parts: Vec<(File, u64)>,
    length: u64,
    position: u64,
}

impl PartReader {
    pub(super) fn open(set: &PartSet) -> Result<Self> {
        let mut parts = Vec::with_capacity(set.paths.len());
        let mut length = 0;
        for path in &set.paths {
            let file = File::open(path).map_err(Error::io(path))?;
            let size = file.metadata().map_err(Error::io(path))?.len();
            parts.push((file, length));
            length += size;
        }
        Ok(Self { parts, length, position: 0 })
    }
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.length || buffer.is_empty() {
            return Ok(0);
        }
        let index = self.parts.partition_point(|&(_, start)| start <= self.position) - 1;
        let end = self.parts.get(index + 1).map_or(self.length, |&(_, start)| start);
        let most = usize::try_from(end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let (file, start) = &mut self.parts[index];
        file.seek(SeekFrom::Start(self.position - *start))?;
        let read = file.read(&mut buffer[..most])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for PartReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
