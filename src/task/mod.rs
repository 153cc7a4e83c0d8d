//! What is trained: a recipe brought to its data, with the objective that its training minimizes.

pub mod classify;
pub mod fit;
pub mod images;
pub mod language;
mod next_token;
mod order;
pub mod rescore;
pub(crate) mod sizes;
pub mod split;
pub mod teachers;
pub mod vae;
pub mod vocabulary;
mod windows;
