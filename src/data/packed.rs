//! Text files as they are, or packed by gzip or zstd: the ending of the name says which.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The endings of packed files.
pub(crate) const ENDINGS: [&str; 2] = ["gz", "zst"];

/// Opens a file for reading its text.
///
/// # Errors
/// If it cannot be opened, or is a link to nothing; what is packed badly is an error when it is read.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(|error| missing(path, &error))?;
    let plain = BufReader::new(file);
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(plain))),
        Some("zst") => {
            Box::new(BufReader::new(Frames { input: Some(plain), frame: None, path: path.into() }))
        }
        _ => Box::new(plain),
    })
}

/// All of a file's text.
///
/// # Errors
/// If it cannot be read, or is not packed as its name says.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

/// An error while a file is read.
pub fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::data(path, format!("cannot be read: {error}"))
}

fn missing(path: &Path, error: &io::Error) -> Error {
    match std::fs::read_link(path) {
        Ok(target) if !path.exists() => {
            Error::data(path, format!("is a link to {}, which is not there", target.display()))
        }
        _ => unreadable(path, error),
    }
}

type Decoder = ruzstd::decoding::StreamingDecoder<BufReader<File>, ruzstd::decoding::FrameDecoder>;

/// The frames of a zstd file one after another.
struct Frames {
    input: Option<BufReader<File>>,
    frame: Option<Box<Decoder>>,
    path: std::path::PathBuf,
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let broken =
            |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer).map_err(|error| broken(&error))?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.input = self.frame.take().map(|frame| frame.into_inner());
            }
            let Some(mut input) = self.input.take() else { return Ok(0) };
            if input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let frame = Decoder::new(input);
            let path = self.path.display();
            self.frame =
                Some(Box::new(frame.map_err(|error| broken(&format!("{path} is no zstd file: {error}")))?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A frame of zstd that holds `text` as it is: magic, a header with one byte of size, one raw block that is the last.
    fn stored(text: &[u8]) -> Vec<u8> {
        let size = text.len() as u32;
        let block = (size << 3 | 1).to_le_bytes();
        [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, size as u8], &block[..3], text].concat()
    }

    #[test]
    fn packed_files_are_read_as_the_text_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let gzip = |text: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packer.write_all(text).unwrap();
            packer.finish().unwrap()
        };
        let two = [gzip(b"one\n"), gzip(b"two\n")].concat(); // members one after another are one text
        assert_eq!(read(&write("a.txt.gz", &two)).unwrap(), b"one\ntwo\n");
        let two = [stored(b"one\n"), stored(b"two\n")].concat();
        assert_eq!(read(&write("a.txt.zst", &two)).unwrap(), b"one\ntwo\n");
        assert_eq!(read(&write("a.txt", b"one\n")).unwrap(), b"one\n");
        for name in ["b.txt.gz", "b.txt.zst"] {
            let error = read(&write(name, b"plain text, whatever its name says")).unwrap_err();
            assert!(error.to_string().contains(name) && error.exit_code() == 3, "{error}");
        }
        let cut = read(&write("c.txt.gz", &gzip(b"a text that is cut off")[..20])).unwrap_err();
        assert!(cut.to_string().contains("c.txt.gz"), "{cut}");
    }
}
