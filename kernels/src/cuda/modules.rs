//! The compiled kernels, loaded once for each device.

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::{CudaDevice, Result};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Name, cubin, PTX.
static MODULES: &[(&str, &[u8], &str)] = include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// What ptxas reports of each kernel: registers, shared memory, spills.
pub const PTXAS_REPORT: &str = include_str!(concat!(env!("OUT_DIR"), "/ptxas.txt"));

type Functions = HashMap<(DeviceId, &'static str), HashMap<String, CudaFunction>>;

/// Functions that were looked up; a device's id is never given again.
static FUNCTIONS: LazyLock<Mutex<Functions>> = LazyLock::new(Mutex::default);
type Modules = HashMap<(DeviceId, &'static str), Arc<CudaModule>>;
static LOADED: LazyLock<Mutex<Modules>> = LazyLock::new(Mutex::default);

/// The kernel `name` of `<module>.cu`. Fails if there is no such kernel, or the driver refuses the module.
pub(crate) fn function(device: &CudaDevice, module: &'static str, name: &str) -> Result<CudaFunction> {
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let functions = functions.entry((device.id(), module)).or_default();
    if let Some(function) = functions.get(name) {
        return Ok(function.clone());
    }
    let function = loaded(device, module)?.load_function(name).w()?;
    functions.insert(name.to_string(), function.clone());
    Ok(function)
}

fn loaded(device: &CudaDevice, name: &'static str) -> Result<Arc<CudaModule>> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(&(device.id(), name)) {
        return Ok(module.clone());
    }
    let Some((_, cubin, ptx)) = MODULES.iter().find(|(module, _, _)| *module == name) else {
        candle_core::bail!("there is no module of kernels called {name}");
    };
    let context = device.cuda_stream().context().clone();
    // The cubin is for one architecture; the driver compiles the PTX for any other.
    let module = context.load_module(Ptx::from_binary(cubin.to_vec()));
    let module = module.or_else(|_| context.load_module(Ptx::from_src(*ptx))).w()?;
    loaded.insert((device.id(), name), module.clone());
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::{MODULES, PTXAS_REPORT};

    #[test]
    fn every_module_has_both_forms_and_a_report() {
        assert!(!MODULES.is_empty());
        for (name, cubin, ptx) in MODULES {
            assert_eq!(&cubin[..4], b"\x7fELF", "{name}");
            assert!(ptx.contains(".target sm_80"), "{name}");
            assert!(PTXAS_REPORT.contains(&format!("== {name}.cu")), "{name}");
        }
    }

    #[test]
    fn no_kernel_spills_registers() {
        let spills: Vec<&str> = PTXAS_REPORT.lines().filter(|line| line.contains("spill")).collect();
        assert!(!spills.is_empty());
        for line in spills {
            assert!(line.contains("0 bytes spill stores, 0 bytes spill loads"), "{line}");
        }
    }
}
