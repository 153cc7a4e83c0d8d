//! Training on several machines or devices at once, as the training step sees it.

pub mod world;
