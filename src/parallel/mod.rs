//! Training on several machines or devices at once, as far as the training step knows of it.

pub mod world;
