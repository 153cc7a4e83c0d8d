//! The recurrences on a GPU beside the oracle in double precision: every path, outputs and all gradients. Where no GPU
//! is found each test says so and is passed over; without the feature `cuda` there is none.

#[cfg(feature = "cuda")]
#[path = "cuda/on_device.rs"]
mod on_device;
