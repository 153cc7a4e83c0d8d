//! One named file out of a zip archive, or what gzip has packed, never more of it than was declared.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Unpacks `member` into memory; its size must be `bytes`. Fails if the archive is broken, lacks the member,
/// or the member has another size.
pub(super) fn extract(archive: &Path, member: &str, bytes: u64) -> Result<Vec<u8>> {
    let refuse = |what: String| Error::data(archive, what);
    let file = BufReader::new(File::open(archive).map_err(Error::io(archive))?);
    if archive.extension().is_some_and(|ending| ending == "gz") {
        return exactly(flate2::bufread::MultiGzDecoder::new(file), archive, member, bytes);
    }
    let mut zip =
        zip::ZipArchive::new(file).map_err(|error| refuse(format!("is no zip archive: {error}")))?;
    let packed = zip.by_name(member).map_err(|error| refuse(format!("holds no file {member:?}: {error}")))?;
    exactly(packed, archive, member, bytes)
}

/// Everything that `packed` gives, if it is so many bytes.
fn exactly(packed: impl Read, archive: &Path, member: &str, bytes: u64) -> Result<Vec<u8>> {
    let refuse = |what: String| Error::data(archive, what);
    let size = usize::try_from(bytes).map_err(|_| refuse(format!("{bytes} bytes fit no memory here")))?;
    let mut content = Vec::with_capacity(size + 1);
    // One byte more than declared is enough to know that it is too large, whatever the archive says.
    let read = packed.take(bytes + 1).read_to_end(&mut content);
    read.map_err(|error| refuse(format!("{member} cannot be unpacked: {error}")))?;
    if content.len() as u64 != bytes {
        let found =
            if content.len() as u64 > bytes { "more than ".into() } else { format!("{} of ", content.len()) };
        return Err(refuse(format!("{member} in it has {found}{bytes} bytes, wanted exactly these")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::extract;
    use std::io::Write;
    use std::path::PathBuf;

    fn archive(dir: &tempfile::TempDir, content: &[u8]) -> PathBuf {
        let path = dir.path().join("text.zip");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        zip.start_file("text", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        path
    }

    #[test]
    fn a_member_comes_out_as_it_went_in() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(extract(&archive(&dir, b"some text"), "text", 9).unwrap(), b"some text");
    }

    #[test]
    fn an_archive_that_unpacks_to_more_or_less_than_declared_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = archive(&dir, &vec![0; 10_000_000]); // packs to a few kB
        for (bytes, found) in [(1000, "more than 1000 bytes"), (20_000_000, "10000000 of 20000000 bytes")] {
            let message = extract(&path, "text", bytes).unwrap_err().to_string();
            assert!(message.contains("text.zip") && message.contains(found), "{message}");
        }
    }

    #[test]
    fn a_missing_member_and_a_broken_archive_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = archive(&dir, b"some text");
        assert!(extract(&path, "other", 9).unwrap_err().to_string().contains("\"other\""));
        std::fs::write(&path, b"PK no archive").unwrap();
        assert!(extract(&path, "text", 9).unwrap_err().to_string().contains("is no zip archive"));
    }
}
