//! Images with a label each, from idx files as MNIST has them: training images, then test images.
//!
//! An idx file is a magic number (two zero bytes, the element type 8 for a byte, the number of dimensions), each
//! dimension as four bytes, the most significant first, then the elements.

use super::corpus::obtain;
use super::data_directories::DataDirectories;
use super::packed;
use super::text::Text;
use super::tokenizer::Tokenizer;
use crate::config::{CorpusConfig, Unit};
use crate::digest::hex;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a directory of images, each with its usual names: training images and labels, test images and labels.
const FILES: [[&str; 2]; 4] = [
    ["train-images-idx3-ubyte", "train-images.idx3-ubyte"],
    ["train-labels-idx1-ubyte", "train-labels.idx1-ubyte"],
    ["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"],
    ["t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"],
];

/// What labels are called, in their order.
const CLASSES: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Images of one size with a label each; clones share them.
#[derive(Clone, Debug)]
pub struct Images {
    /// One byte a pixel, image after image.
    pixels: Arc<Vec<u8>>,
    labels: Arc<Vec<u8>>,
    /// The part of them that this split is.
    first: usize,
    count: usize,
    /// Height, width and, of coloured images, channels.
    pub shape: Vec<usize>,
}

/// A corpus of images.
#[derive(Clone, Debug)]
pub struct ImageCorpus {
    /// Its name, or the directory it was read from.
    pub name: String,
    /// What a model learns from.
    pub train: Images,
    /// What decides which weights are kept; without it the training images do.
    pub valid: Option<Images>,
    /// What results are reported on.
    pub test: Images,
    /// How many labels there are.
    pub classes: usize,
    /// The SHA-256 of the four files' contents one after another.
    pub sha256: String,
}

impl ImageCorpus {
    /// Whether a directory has the first of the four idx files.
    pub fn is_in(directory: &Path) -> bool {
        find_one(directory, &FILES[0]).is_some()
    }

    /// Finds, verifies and reads the images that `config.name` says: a known name or a directory. The last images of the
    /// training files are the validation split as far as `config.split` says.
    ///
    /// # Errors
    /// If there is no such corpus, or a file is not what it should be.
    pub fn open(config: &CorpusConfig, directories: &DataDirectories) -> Result<Self> {
        let name = config.name.as_str();
        let files: Vec<Text> = match directories.registry.get(name) {
            Some(entry) if entry.images => {
                entry.files.iter().map(|file| obtain(entry, file, directories)).collect::<Result<_>>()?
            }
            Some(_) => return Err(Error::data(name, "is a corpus of text, wanted images, as mnist")),
            None if Path::new(name).is_dir() => {
                FILES.iter().map(|names| read_one(Path::new(name), names)).collect::<Result<_>>()?
            }
            None if Path::new(name).exists() => {
                return Err(Error::data(name, "is a file, wanted a directory with four idx files"));
            }
            None => return Err(directories.registry.unknown(name)),
        };
        Self::of_files(name, &files, config.split)
    }

    fn of_files(name: &str, files: &[Text], split: [f64; 3]) -> Result<Self> {
        let [images, labels, test_images, test_labels] = files else {
            return Err(Error::data(name, format!("has {} files, wanted four", files.len())));
        };
        let all = Images::read(images, labels)?;
        let test = Images::read(test_images, test_labels)?;
        if all.shape != test.shape {
            let what = format!("has images of {:?}, those for training are {:?}", test.shape, all.shape);
            return Err(Error::data(&test_images.source, what));
        }
        let largest = all.labels.iter().chain(test.labels.iter()).max().map_or(0, |&label| label as usize);
        if largest >= CLASSES.len() {
            let what = format!("has the label {largest}, wanted at most {}", CLASSES.len() - 1);
            return Err(Error::data(&labels.source, what));
        }
        let [train_percent, valid_percent, test_percent] = split;
        if test_percent != 0.0 {
            let what = format!(
                "corpus.split is {split:?}, but the test images of {name} are a file of their own: wanted a last part of \
                 0, as [100, 0, 0] or [90, 10, 0]"
            );
            return Err(Error::config(what));
        }
        let valid = (all.count as f64 * valid_percent / 100.0).round() as usize;
        let train = all.count - valid;
        if train == 0 || (valid == 0 && valid_percent > 0.0) {
            let what = format!("{} images cannot be split {train_percent} to {valid_percent}", all.count);
            return Err(Error::data(name, what));
        }
        let mut hash = Sha256::new();
        files.iter().for_each(|file| hash.update(file.bytes()));
        Ok(Self {
            name: name.into(),
            train: all.part(0, train),
            valid: (valid > 0).then(|| all.part(train, valid)),
            test,
            classes: (largest + 1).max(2),
            sha256: hex(hash),
        })
    }

    /// The labels as characters, in their order.
    pub fn labels(&self) -> Result<Tokenizer> {
        let text: String = CLASSES.chars().take(self.classes).collect();
        let config = CorpusConfig { unknown: false, ..CorpusConfig::new(&self.name, Unit::Char) };
        Tokenizer::build(&config, &Text::new(text.into_bytes(), &self.name))
    }
}

impl Images {
    fn read(images: &Text, labels: &Text) -> Result<Self> {
        let (shape, pixels) = parse(images, 3..=4)?;
        let (label_shape, values) = parse(labels, 1..=1)?;
        if shape[0] != label_shape[0] {
            let what =
                format!("has {} labels, {} has {} images", label_shape[0], images.source.display(), shape[0]);
            return Err(Error::data(&labels.source, what));
        }
        if pixels.is_empty() {
            return Err(Error::data(&images.source, format!("holds no image: its sizes are {shape:?}")));
        }
        Ok(Self {
            pixels: Arc::new(pixels.to_vec()),
            labels: Arc::new(values.to_vec()),
            first: 0,
            count: shape[0],
            shape: shape[1..].to_vec(),
        })
    }

    /// The first `count` of them, or all if they are fewer.
    pub fn first(&self, count: usize) -> Self {
        self.part(0, count.min(self.count))
    }

    fn part(&self, start: usize, count: usize) -> Self {
        Self { first: self.first + start, count, ..self.clone() }
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Pixels of an image, its channels counted.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// The labels in order.
    pub fn labels(&self) -> &[u8] {
        &self.labels[self.first..self.first + self.count]
    }

    /// The images of these numbers, `(1, images, pixels)` from 0 to 1, and their labels, `(1, images)` of u32.
    pub fn batch(&self, numbers: &[u32], dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
        let size = self.size();
        let pixels = numbers.iter().flat_map(|&number| {
            let start = (self.first + number as usize) * size;
            &self.pixels[start..start + size]
        });
        let shape = (1, numbers.len(), size);
        // Each type has its own quotients: one in single precision is not that of double precision.
        let images = match dtype {
            DType::F64 => Tensor::from_iter(pixels.map(|&pixel| f64::from(pixel) / 255.0), device)?,
            _ => Tensor::from_iter(pixels.map(|&pixel| f32::from(pixel) / 255.0), device)?.to_dtype(dtype)?,
        };
        let labels: Vec<u32> = numbers.iter().map(|&number| self.labels()[number as usize].into()).collect();
        Ok((images.reshape(shape)?, Tensor::from_vec(labels, (1, numbers.len()), device)?))
    }
}

/// The file of one of these names in a directory, as it is or packed by gzip.
fn find_one(directory: &Path, names: &[&str; 2]) -> Option<PathBuf> {
    let packed = names.iter().map(|name| format!("{name}.gz"));
    let mut paths = names.iter().map(|name| name.to_string()).chain(packed).map(|name| directory.join(name));
    paths.find(|path| path.is_file())
}

fn read_one(directory: &Path, names: &[&str; 2]) -> Result<Text> {
    let path = find_one(directory, names).ok_or_else(|| {
        Error::data(directory, format!("has no {} and no {}, also not with .gz", names[0], names[1]))
    })?;
    Ok(Text::new(packed::read(&path)?, &path))
}

/// Sizes and elements of an idx file of bytes.
fn parse(file: &Text, ranks: std::ops::RangeInclusive<usize>) -> Result<(Vec<usize>, &[u8])> {
    let bytes = file.bytes();
    let refuse = |what: String| Err(Error::data(&file.source, what));
    let rank = match bytes {
        [0, 0, 8, rank, ..] if ranks.contains(&usize::from(*rank)) => usize::from(*rank),
        [a, b, c, d, ..] => {
            return refuse(format!(
                "is no idx file of bytes with {} dimensions: it begins with {a:02x} {b:02x} {c:02x} {d:02x}, wanted 00 \
                 00 08 {:02x}",
                ranks.start(),
                ranks.start()
            ));
        }
        _ => return refuse(format!("is no idx file: it has {} bytes", bytes.len())),
    };
    let Some((sizes, elements)) = bytes[4..].split_at_checked(4 * rank) else {
        return refuse(format!("is cut off in its sizes: it has {} bytes", bytes.len()));
    };
    let sizes: Vec<usize> =
        sizes.as_chunks().0.iter().map(|&size: &[u8; 4]| u32::from_be_bytes(size) as usize).collect();
    let wanted = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if wanted != Some(elements.len()) {
        return refuse(format!("has {} elements, its sizes {sizes:?} want another number", elements.len()));
    }
    Ok((sizes, elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, sizes: &[u32], elements: &[u8]) -> Text {
        let mut bytes = vec![0, 0, 8, sizes.len() as u8];
        sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
        bytes.extend(elements);
        Text::new(bytes, name)
    }

    fn files() -> [Text; 4] {
        [
            file("a", &[4, 1, 2], &[0, 255, 51, 0, 0, 0, 102, 255]),
            file("b", &[4], &[2, 0, 1, 1]),
            file("c", &[1, 1, 2], &[255, 255]),
            file("d", &[1], &[2]),
        ]
    }

    #[test]
    fn images_are_pixels_from_0_to_1_with_a_label() {
        let corpus = ImageCorpus::of_files("made", &files(), [75.0, 25.0, 0.0]).unwrap();
        assert_eq!((corpus.classes, corpus.train.len(), corpus.test.len()), (3, 3, 1));
        let (images, labels) = corpus.train.batch(&[1, 0], DType::F32, &Device::Cpu).unwrap();
        assert_eq!(images.to_vec3::<f32>().unwrap(), [[[0.2, 0.0], [0.0, 1.0]]]);
        assert_eq!(labels.to_vec2::<u32>().unwrap(), [[0, 2]]);
        let (images, labels) = corpus.valid.as_ref().unwrap().batch(&[0], DType::F32, &Device::Cpu).unwrap();
        assert_eq!(images.to_vec3::<f32>().unwrap(), [[[0.4, 1.0]]]);
        assert_eq!(labels.to_vec2::<u32>().unwrap(), [[1]]);
        assert_eq!(corpus.labels().unwrap().words(), ["0", "1", "2"]);
        let (images, _) = corpus.train.batch(&[1], DType::F64, &Device::Cpu).unwrap();
        assert_eq!(images.to_vec3::<f64>().unwrap(), [[[51.0 / 255.0, 0.0]]]); // not the nearest number of single precision
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_named() {
        let whole = files();
        for (which, wrong, found) in [
            (0, Text::new(vec![0, 0, 8], "x"), "it has 3 bytes"),
            (0, Text::new(b"\x1f\x8b\x08\x00....".to_vec(), "x"), "begins with 1f 8b 08 00"),
            (0, file("x", &[4, 1, 2], &[0; 7]), "has 7 elements"),
            (0, file("x", &[u32::MAX, u32::MAX, u32::MAX], &[0; 7]), "has 7 elements"),
            (0, file("x", &[0, 1, 2], &[]), "x has 0 images"),
            (1, file("x", &[3], &[0; 3]), "has 3 labels"),
            (1, file("x", &[4], &[0, 0, 0, 200]), "the label 200"),
            (2, file("x", &[1, 2, 2], &[0; 4]), "images of [2, 2]"),
        ] {
            let mut files = whole.clone();
            files[which] = wrong;
            let error = ImageCorpus::of_files("made", &files, [100.0, 0.0, 0.0]).unwrap_err().to_string();
            assert!(error.contains(found), "{error}, wanted {found}");
        }
        let error = ImageCorpus::of_files("made", &whole, [90.0, 5.0, 5.0]).unwrap_err().to_string();
        assert!(error.contains("[100, 0, 0]"), "{error}");
    }
}
