//! The RHN recurrence in one cooperative launch a window, for cards whose chip holds the weights; in bf16.

use crate::cuda::launch::address;
use crate::cuda::modules;
use crate::scan::cuda_memory::{DeviceSizes, Key, Lease, Tape, WindowMemory};
use crate::scan::cuda_steps::DeviceInputs;
use crate::scan::persistent::launch_plan::{Card, Direction, Persistent as Plan, Shape};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaView, LaunchConfig, PushKernelArg, sys,
};
use candle_core::{CudaDevice, Result};
use std::sync::Mutex;

/// A window's memory.
pub(crate) struct Persistent {
    pub(crate) tape: Tape,
    /// The barrier's counter: one number, with a line of the cache for itself.
    arrived: CudaSlice<u32>,
    forward: Launch,
    backward: Launch,
}

impl WindowMemory for Persistent {
    fn idle() -> &'static Mutex<Vec<(Key, Box<Self>)>> {
        static IDLE: Mutex<Vec<(Key, Box<Persistent>)>> = Mutex::new(Vec::new());
        &IDLE
    }

    fn new(device: &CudaDevice, key: &Key) -> Result<Self> {
        let launch = |direction| {
            let launch = Launch::plan(device, key.sizes, direction)?;
            launch.ok_or_else(|| {
                candle_core::Error::Msg(format!("the weights of {:?} do not fit this GPU's chip", key.sizes))
            })
        };
        Ok(Self {
            forward: launch(Direction::Forward)?,
            backward: launch(Direction::Backward)?,
            tape: Tape::new(device, key)?,
            arrived: device.alloc_zeros(32)?,
        })
    }
}

/// Whether a window of these sizes can be run.
pub(crate) fn fits(device: &CudaDevice, sizes: DeviceSizes) -> Result<bool> {
    let forward = Launch::plan(device, sizes, Direction::Forward)?;
    Ok(forward.is_some() && Launch::plan(device, sizes, Direction::Backward)?.is_some())
}

/// A kernel and how it is launched.
struct Launch {
    function: CudaFunction,
    config: LaunchConfig,
}

impl Launch {
    /// `None` if the card lacks the memory, or would not run all blocks at once.
    fn plan(device: &CudaDevice, sizes: DeviceSizes, direction: Direction) -> Result<Option<Self>> {
        let shape = Shape { batch: sizes.batch, depth: sizes.depth, hidden: sizes.hidden };
        let Some(card) = card(device)? else { return Ok(None) };
        let Some(plan) = Plan::plan(shape, direction, card) else { return Ok(None) };
        let module = match direction {
            Direction::Forward => "rhn_persistent_forward",
            Direction::Backward => "rhn_persistent_backward",
        };
        let function = modules::function(device, module, &format!("{module}_{}", plan.tiles))?;
        let dynamic = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(dynamic, card.shared_bytes as i32).w()?;
        let threads = plan.threads as u32;
        let shared = plan.shared_bytes;
        let blocks =
            function.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None).w()? as usize;
        let config = LaunchConfig {
            grid_dim: (plan.blocks as u32, 1, 1),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: shared as u32,
        };
        let resident = blocks * card.multiprocessors >= plan.blocks;
        Ok(resident.then_some(Self { function, config }))
    }
}

/// What the device has; `None` if its blocks cannot wait for one another. Fails if the driver does not report it.
pub fn card(device: &CudaDevice) -> Result<Option<Card>> {
    use sys::CUdevice_attribute as Attribute;
    let stream = device.cuda_stream();
    let of = |attribute| stream.context().attribute(attribute).w();
    if of(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? == 0 {
        return Ok(None);
    }
    Ok(Some(Card {
        multiprocessors: of(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        shared_bytes: of(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        registers: of(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)? as usize,
    }))
}

/// The outputs `(time, batch, hidden)`.
pub(crate) fn forward(
    device: &CudaDevice,
    lease: &mut Lease<Persistent>,
    inputs: &DeviceInputs<'_>,
    outputs: &mut CudaSlice<f32>,
) -> Result<()> {
    let [time, batch, depth, hidden, stride] = lease.key.sizes.arguments()?;
    let mask = inputs.mask.map_or(0, address);
    let memory = lease.memory();
    let stream = device.cuda_stream();
    stream.memset_zeros(&mut memory.arrived).w()?;
    let mut launch = stream.launch_builder(&memory.forward.function);
    launch.arg(&time).arg(&batch).arg(&depth).arg(&hidden).arg(&stride);
    launch.arg(inputs.projected).arg(inputs.recurrent).arg(inputs.bias).arg(&inputs.state[0]);
    launch.arg(&mask).arg(&mut memory.tape.states).arg(&mut memory.tape.saved).arg(&mut memory.tape.operands);
    launch.arg(outputs).arg(&mut memory.arrived);
    // SAFETY: the arguments are the kernel's, of the window's sizes; `Launch::plan` made sure that all blocks are
    // resident; memory that is freed later is freed on the same stream.
    unsafe { launch.launch_cooperative(memory.forward.config) }.w().map(drop)
}

/// The gradients of the gates' products, on the tape.
pub(crate) fn backward(
    device: &CudaDevice,
    lease: &mut Lease<Persistent>,
    recurrent: &CudaView<'_, f32>,
    mask: Option<&CudaView<'_, f32>>,
    grads: &CudaView<'_, f32>,
) -> Result<()> {
    let [time, batch, depth, hidden, stride] = lease.key.sizes.arguments()?;
    let mask = mask.map_or(0, address);
    let memory = lease.memory();
    let stream = device.cuda_stream();
    stream.memset_zeros(&mut memory.arrived).w()?;
    let gate_operands = memory.tape.gate_operands();
    let mut launch = stream.launch_builder(&memory.backward.function);
    launch.arg(&time).arg(&batch).arg(&depth).arg(&hidden).arg(&stride);
    launch.arg(grads).arg(recurrent).arg(&mask);
    launch.arg(&memory.tape.states).arg(&mut memory.tape.saved).arg(&gate_operands).arg(&mut memory.arrived);
    // SAFETY: as in `forward`.
    unsafe { launch.launch_cooperative(memory.backward.config) }.w().map(drop)
}
