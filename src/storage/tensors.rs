//! Tensors to and from the bytes of a safetensors file, with errors that name the file, the tensor and the position.

use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::model::{TensorSpec, WeightTypes};
use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use rhn_kernels::error::brief;
use safetensors::SafeTensors;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// No model of this family needs a longer list of tensors.
const MAX_HEADER: u64 = 16 << 20;

/// The bytes of a safetensors file; equal tensors give equal bytes.
pub fn save_tensors(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    // Python's loaders expect the name of the library whose layout it is.
    save_tensors_of(tensors, [("format", "pt")])
}

/// The bytes of a safetensors file that says something about itself.
pub fn save_tensors_of<'a>(
    tensors: &BTreeMap<String, Tensor>,
    about: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<u8>> {
    let on_cpu: Vec<(&str, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), tensor.to_device(&Device::Cpu)?.contiguous()?)))
        .collect::<Result<_>>()?;
    let about = about.into_iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let metadata: HashMap<String, String> = about.collect();
    safetensors::serialize(on_cpu, Some(metadata))
        .map_err(|error| Error::from(candle_core::Error::from(error)))
}

/// Every tensor of a safetensors file as it is stored; `path` is for messages.
pub fn load_tensors(path: &Path, bytes: &[u8], device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let parsed = parse(path, bytes)?;
    let load = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let tensor = view.load(device).map_err(|error| refuse(path, &name, brief(&error)))?;
        Ok((name, tensor))
    };
    parsed.tensors().into_iter().map(load).collect()
}

/// The SHA-256 of a safetensors file's numbers, which follow its header.
pub(crate) fn numbers_sha256(bytes: &[u8]) -> String {
    let header = bytes.first_chunk().map_or(0, |head| u64::from_le_bytes(*head) as usize);
    sha256(bytes.get(header.saturating_add(8)..).unwrap_or_default())
}

/// What a safetensors file says about itself under `key`; `path` is for messages.
pub(crate) fn metadata(path: &Path, bytes: &[u8], key: &str) -> Result<Option<String>> {
    parse(path, bytes)?; // for its messages
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| Error::checkpoint(path, format!("is not a safetensors file: {error}")))?;
    Ok(header.metadata().as_ref().and_then(|metadata| metadata.get(key).cloned()))
}

/// The weights of a model: exactly the tensors of `expected`, all finite, floats as `types` says.
pub fn load_weights(
    path: &Path,
    bytes: &[u8],
    expected: &BTreeMap<String, TensorSpec>,
    types: WeightTypes,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    let parsed = parse(path, bytes)?;
    check_shapes(path, &parsed, expected)?;
    let load = |(name, spec): (&String, &TensorSpec)| {
        let wrong = |error| refuse(path, name, brief(&error));
        let view = parsed.tensor(name).map_err(|error| refuse(path, name, error))?;
        let stored = view.load(&Device::Cpu).map_err(wrong)?;
        let wanted = match spec.below {
            Some(limit) => to_indices(path, name, &stored, limit)?,
            None => to_floats(path, name, &stored, types.of(spec))?,
        };
        Ok((name.clone(), wanted.to_device(device)?))
    };
    expected.iter().map(load).collect()
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    let wrong = |what: String| Error::checkpoint(path, format!("is not a safetensors file: {what}"));
    if let Some(length) = bytes.first_chunk().map(|head| u64::from_le_bytes(*head))
        && length > MAX_HEADER
    {
        return Err(wrong(format!(
            "its header is said to have {length} bytes, at most {MAX_HEADER} are read"
        )));
    }
    SafeTensors::deserialize(bytes).map_err(|error| wrong(error.to_string()))
}

/// Refuses missing, additional and wrong-shaped tensors.
fn check_shapes(path: &Path, found: &SafeTensors, expected: &BTreeMap<String, TensorSpec>) -> Result<()> {
    for (name, TensorSpec { shape, .. }) in expected {
        let view = found.tensor(name).map_err(|_| refuse(path, name, "is missing"))?;
        if view.shape() != shape {
            let what = format!("has shape {:?}, config.json wants {shape:?}", view.shape());
            return Err(refuse(path, name, what));
        }
    }
    let mut names = found.names();
    names.sort_unstable();
    match names.into_iter().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(refuse(path, name, "belongs to no model that config.json describes")),
        None => Ok(()),
    }
}

fn to_floats(path: &Path, name: &str, stored: &Tensor, dtype: DType) -> Result<Tensor> {
    if !matches!(stored.dtype(), DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
        let what = format!("is of {}, wanted f32, f64, f16 or bf16", stored.dtype().as_str());
        return Err(refuse(path, name, what));
    }
    check_finite(path, name, stored)?;
    let wanted = stored.to_dtype(dtype)?;
    if stored.dtype() != dtype {
        check_finite(path, name, &wanted)?; // 1e300 is no f32
    }
    Ok(wanted)
}

fn check_finite(path: &Path, name: &str, tensor: &Tensor) -> Result<()> {
    let flat = tensor.flatten_all()?;
    let first_bad = if flat.dtype() == DType::F64 {
        flat.to_vec1::<f64>()?.iter().position(|value| !value.is_finite())
    } else {
        flat.to_dtype(DType::F32)?.to_vec1::<f32>()?.iter().position(|value| !value.is_finite())
    };
    let Some(flat_index) = first_bad else { return Ok(()) };
    let position = index(flat_index, tensor.dims());
    Err(refuse(path, name, format!("is not finite at {position:?} (as {})", tensor.dtype().as_str())))
}

fn to_indices(path: &Path, name: &str, stored: &Tensor, limit: usize) -> Result<Tensor> {
    if !stored.dtype().is_int() {
        let what = format!("is of {}, wanted whole numbers", stored.dtype().as_str());
        return Err(refuse(path, name, what));
    }
    let values = stored.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX).min(i64::from(u32::MAX) + 1);
    if let Some(flat_index) = values.iter().position(|value| !(0..limit).contains(value)) {
        let position = index(flat_index, stored.dims());
        let what =
            format!("is {} at {position:?}, wanted 0 or more and less than {limit}", values[flat_index]);
        return Err(refuse(path, name, what));
    }
    Ok(stored.to_dtype(DType::U32)?)
}

/// Where the `flat`-th element of a tensor is.
fn index(mut flat: usize, dims: &[usize]) -> Vec<usize> {
    let mut position = vec![0; dims.len()];
    for (index, &size) in position.iter_mut().zip(dims).rev() {
        *index = flat % size;
        flat /= size;
    }
    position
}

fn refuse(path: &Path, tensor: &str, what: impl std::fmt::Display) -> Error {
    Error::checkpoint(path, format!("tensor {tensor:?} {what}"))
}
