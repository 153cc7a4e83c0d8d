//! Launches that are the same every time: replayed as one graph, which spares the processor most of their cost.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, sys};
use candle_core::{CudaDevice, Result};

/// Launches over memory that stays where it is.
#[derive(Default)]
pub(crate) enum Graph {
    /// Never run: libraries have yet to load what they need, which a capture does not allow.
    #[default]
    Cold,
    /// Run once.
    Warm,
    /// Replayed from now on.
    Captured(CudaGraph),
    /// Not to be captured: launched one by one.
    Refused,
}

impl Graph {
    /// Runs `launches`, which only submits work to the device's stream and always does the same. Fails if a launch
    /// fails. That they cannot be captured is no error.
    pub(crate) fn run(&mut self, device: &CudaDevice, launches: impl Fn() -> Result<()>) -> Result<()> {
        if let Self::Warm = self {
            *self = capture(device, &launches).map_or(Self::Refused, Self::Captured);
        }
        match self {
            Self::Captured(graph) => graph.launch().w(),
            Self::Cold => {
                launches()?;
                *self = Self::Warm;
                Ok(())
            }
            Self::Warm | Self::Refused => launches(),
        }
    }
}

/// The launches as a graph, not run; `None` if something in them cannot be captured.
fn capture(device: &CudaDevice, launches: &impl Fn() -> Result<()>) -> Option<CudaGraph> {
    let stream = device.cuda_stream();
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).ok()?;
    let launched = launches();
    // The capture ends whatever happened, or the stream could not be used any more.
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
    launched.ok()?;
    graph.ok()?
}
