//! A recurrence that goes one step at a time at batch 1, on buffers that it keeps.

/// One step after another.
pub trait StepByStep: Send {
    /// From the input's products with the layer's weights to the next state.
    fn step(&mut self, projected: &[f32]);

    /// The state's parts, `(hidden)` each; the first is what the layer gives.
    fn state(&self) -> &[Vec<f32>];

    /// The same, to be changed.
    fn state_mut(&mut self) -> &mut [Vec<f32>];
}
