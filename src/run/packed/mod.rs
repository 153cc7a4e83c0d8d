//! A run's directory in parts of a chosen size, for links that carry no large file: a zip archive, cut.
//!
//! `NAME.zip.001`, `NAME.zip.002`, … joined are a zip archive of the run's files as they are, so that other programs can
//! open it too; its last file, `pack.json`, has their sizes and SHA-256. `NAME.zip.sha256` has those of the parts, in
//! the form of `sha256sum`, so that a damaged or a missing one is known by name. Equal runs give equal parts.

mod parts;

use super::location;
use crate::checkpoint::Checkpoint;
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::storage::{METRICS, MODEL, RESULT, STATES, TENSORBOARD, check_format, disk, to_json};
use parts::{PartReader, PartWriter};
pub(crate) use parts::{PartSet, find_parts};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::mem::ManuallyDrop;
use std::path::{Component, Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

/// The version of `pack.json` that this program writes, and the newest that it reads.
const FORMAT: u64 = 1;

/// The archive's list of its files.
const CONTENTS: &str = "pack.json";

/// Bytes that are read and written at once.
const BLOCK: usize = 1 << 20;

/// The most that `pack.json` may have.
const MOST_CONTENTS: u64 = 16 << 20;

/// Is told how many bytes of how many are done; an error ends the work.
pub(crate) type Told<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

#[derive(Serialize, Deserialize)]
struct Contents {
    format: u64,
    files: Vec<Packed>,
}

/// A file of the run: its path with `/` below the run's directory.
#[derive(Serialize, Deserialize)]
struct Packed {
    name: String,
    size: u64,
    sha256: String,
}

/// Packs the run in `directory` into parts of `part_size` bytes, the last one of less, called `prefix.zip.001` and so on.
///
/// # Errors
/// If there is no run, another process works on it, a part is there already, or something cannot be read or written; no
/// part is then left.
pub(crate) fn pack(directory: &Path, prefix: &Path, part_size: u64, told: Told<'_>) -> Result<PartSet> {
    if ![MODEL, STATES].iter().any(|name| directory.join(name).exists()) {
        return Err(Error::checkpoint(directory, "is no run: it has neither a model nor a training state"));
    }
    let _lock = location::hold_to_read(directory)?;
    if directory.join(MODEL).exists() {
        Checkpoint::open(directory)?; // what is damaged here would be damaged there
    }
    let mut names = Vec::new();
    list(directory, "", &mut names)?;
    let size = |name: &String| {
        let path = directory.join(name);
        Ok(fs::metadata(&path).map_err(Error::io(&path))?.len())
    };
    let total = names.iter().map(size).sum::<Result<u64>>()?;
    let mut writer = PartWriter::create(prefix, part_size)?;
    // A few parts at a time, so that a signal is heard of soon where they are small: each is forced to the disk.
    let block = usize::try_from(part_size.saturating_mul(16)).map_or(BLOCK, |size| size.min(BLOCK));
    let written = write((directory, &names), &mut writer, block, &mut |done| told(done, total));
    match (writer.take_error(), written) {
        (Some(error), _) | (None, Err(error)) => Err(error),
        (None, Ok(())) => writer.finish(),
    }
}

/// The files below `directory`, in order: but for the lock, and what is only there while something is written or was left by a kill.
fn list(directory: &Path, below: &str, names: &mut Vec<String>) -> Result<()> {
    let path = directory.join(below);
    let mut entries = fs::read_dir(&path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.as_mut().map_err(|error| Error::io(&path)(std::io::Error::from(error.kind())))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| {
            Error::checkpoint(&path, format!("has a file whose name is no UTF-8: {}", name.display()))
        })?;
        let is_aside = || [METRICS, RESULT, TENSORBOARD].iter().any(|file| disk::is_aside(&name, file));
        let is_passing = name.starts_with('.') || (below.is_empty() && (name == "lock" || is_aside()));
        if is_passing {
            continue;
        }
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(Error::io(entry.path()))?;
        if kind.is_dir() {
            list(directory, &name, names)?;
        } else if entry.path().is_file() {
            names.push(name); // a link to a file is packed as the file
        } else {
            return Err(Error::checkpoint(entry.path(), "is no file and no directory of a run"));
        }
    }
    Ok(())
}

/// Writes the archive.
fn write(
    (directory, names): (&Path, &[String]),
    writer: &mut PartWriter,
    block: usize,
    told: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let failed =
        |error: zip::result::ZipError| Error::checkpoint(directory, format!("cannot be packed: {error}"));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
        .large_file(true);
    // Dropped after an error it would try to write its end, and print that it cannot: only a whole one is.
    let mut archive = ManuallyDrop::new(ZipWriter::new_stream(writer));
    let mut files = Vec::with_capacity(names.len());
    let mut done = 0;
    for name in names {
        archive.start_file(name.as_str(), options).map_err(failed)?;
        let path = directory.join(name);
        let mut file = File::open(&path).map_err(Error::io(&path))?;
        let copied = copy(&mut file, [&path, directory], &mut *archive, block, &mut |bytes| {
            done += bytes;
            told(done)
        })?;
        files.push(Packed { name: name.clone(), ..copied });
    }
    archive.start_file(CONTENTS, options).map_err(failed)?;
    archive.write_all(&to_json(&Contents { format: FORMAT, files })).map_err(Error::io(directory))?;
    ManuallyDrop::into_inner(archive).finish().map_err(failed)?;
    Ok(())
}

/// Copies `from`, which is `source`, into `to`, which is `target`, so many bytes at a time: how much it was, and its SHA-256.
fn copy(
    from: &mut dyn Read,
    [source, target]: [&Path; 2],
    to: &mut dyn Write,
    block: usize,
    told: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Packed> {
    let mut block = vec![0; block];
    let mut hash = Sha256::new();
    let mut size = 0;
    loop {
        let read = from.read(&mut block).map_err(Error::io(source))?;
        if read == 0 {
            return Ok(Packed { name: String::new(), size, sha256: hex(hash) });
        }
        hash.update(&block[..read]);
        to.write_all(&block[..read]).map_err(Error::io(target))?;
        size += read as u64;
        told(read as u64)?;
    }
}

/// Unpacks the parts into the new directory `out`; gives how many files it has.
///
/// # Errors
/// If a part is missing or damaged, the archive is none of a run's, or `out` is there already; nothing is then left.
pub(crate) fn unpack(set: &PartSet, out: &Path, told: Told<'_>) -> Result<usize> {
    if out.exists() {
        return Err(Error::config(format!(
            "--out {}: is there already, wanted a new directory",
            out.display()
        )));
    }
    set.verify()?;
    let archive = &set.paths[0];
    let refuse = |what: String| Error::checkpoint(archive, what);
    let reader = BufReader::with_capacity(BLOCK, PartReader::open(set)?);
    let mut zip = ZipArchive::new(reader).map_err(|error| {
        refuse(format!("and the parts after it are no whole archive: {error}; is the last part there?"))
    })?;
    let contents = contents(&mut zip, archive)?;
    check_names(&zip, &contents, archive)?;
    let aside = out.with_file_name(format!(
        ".{}.{}.part",
        out.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let unpacked =
        write_files(&mut zip, &contents, archive, &aside, told).and_then(|()| disk::rename(&aside, out));
    if unpacked.is_err() {
        let _ = fs::remove_dir_all(&aside); // the first error is the one to report
    }
    unpacked?;
    disk::sync_name(out)?;
    Ok(contents.files.len())
}

fn contents(zip: &mut ZipArchive<BufReader<PartReader>>, archive: &Path) -> Result<Contents> {
    let refuse = |what: String| Error::checkpoint(archive, what);
    let entry = zip
        .by_name(CONTENTS)
        .map_err(|error| refuse(format!("was not packed by `rhn run pack`: {CONTENTS}: {error}")))?;
    let mut bytes = Vec::new();
    entry.take(MOST_CONTENTS).read_to_end(&mut bytes).map_err(Error::io(archive))?;
    let wrong = |error: serde_json::Error| refuse(format!("{CONTENTS}: {error}"));
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = serde_json::from_slice(&bytes).map_err(wrong)?;
    check_format(archive, format, FORMAT)?;
    serde_json::from_slice(&bytes).map_err(wrong)
}

/// Refuses names that lead out of the directory or come twice, and files that are not listed.
fn check_names(zip: &ZipArchive<BufReader<PartReader>>, contents: &Contents, archive: &Path) -> Result<()> {
    let mut listed = BTreeSet::from([CONTENTS]);
    for Packed { name, .. } in &contents.files {
        let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let is_odd = name.is_empty() || name.contains(['\\', ':', '\0']) || !is_plain || name == "lock";
        if is_odd || !listed.insert(name) {
            return Err(Error::checkpoint(
                archive,
                format!("{CONTENTS} names a file {name:?}, which no run has"),
            ));
        }
    }
    for name in zip.file_names() {
        let name = name.map_err(|error| {
            Error::checkpoint(archive, format!("holds a name that cannot be read: {error}"))
        })?;
        if !listed.contains(&*name) {
            return Err(Error::checkpoint(
                archive,
                format!("holds {name:?}, which {CONTENTS} does not list"),
            ));
        }
    }
    Ok(())
}

fn write_files(
    zip: &mut ZipArchive<BufReader<PartReader>>,
    contents: &Contents,
    archive: &Path,
    aside: &Path,
    told: Told<'_>,
) -> Result<()> {
    let total = contents.files.iter().fold(0u64, |total, file| total.saturating_add(file.size));
    let mut done = 0;
    disk::make_directory(aside)?;
    for Packed { name, size, sha256 } in &contents.files {
        let refuse = |what: String| Error::checkpoint(archive, format!("{name} in it {what}"));
        let entry = zip.by_name(name).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        if entry.compression() != CompressionMethod::Stored || entry.size() != *size {
            return Err(refuse(format!("has {} bytes, {CONTENTS} says {size}", entry.size())));
        }
        let path: PathBuf = aside.join(name);
        disk::make_directory(disk::parent(&path))?;
        let mut file = File::create(&path).map_err(Error::io(&path))?;
        let found = copy(&mut entry.take(*size), [archive, &path], &mut file, BLOCK, &mut |bytes| {
            done += bytes;
            told(done, total)
        })?;
        if (found.size, &found.sha256) != (*size, sha256) {
            let what = format!(
                "has SHA-256 {} over {} bytes, wanted {sha256} over {size}",
                found.sha256, found.size
            );
            return Err(refuse(what));
        }
        file.sync_all().map_err(Error::io(&path))?;
    }
    Ok(())
}
