//! The built-in recipes at a size that a test can afford: everything but the sizes stays.

use rhn::config::Resolved;
use rhn::config::{CoreConfig, EmbeddingConfig, Recipe};

/// The recipe `name` with `hidden_size` units and few sublayers and filters, and `settings` on top.
pub(crate) fn shrunk(name: &str, hidden_size: usize, settings: &[&str]) -> Recipe {
    let model = Resolved::new(name, &[]).unwrap().recipe.model;
    let mut all = vec![format!("model.core.hidden_size={hidden_size}")];
    if let CoreConfig::Rhn(rhn) = &model.core {
        all.push(format!("model.core.recurrence_depth={}", rhn.recurrence_depth.min(3)));
    }
    if let EmbeddingConfig::CharCnn(cnn) = &model.embedding {
        let widths: Vec<usize> = cnn.filter_widths.iter().copied().filter(|&width| width <= 3).collect();
        all.push(format!("model.embedding.filter_counts={:?}", vec![8; widths.len()]));
        all.push(format!("model.embedding.filter_widths={widths:?}"));
    }
    if model.output.cutoffs.is_some() {
        all.push("model.output.cutoffs=[4]".into()); // within a vocabulary of ten words too
    }
    all.extend(settings.iter().map(ToString::to_string));
    Resolved::new(name, &all).unwrap().recipe
}
