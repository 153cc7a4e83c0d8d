//! The flags of evaluation that adapts to its text.

use crate::command::args::CacheArgs;
use crate::error::Result;
use crate::eval::adapt::{Adaptation, CacheSettings, DynamicSettings, Free, UpdateGroup};

#[derive(Debug, clap::Args)]
pub(super) struct AdaptArgs {
    /// Divide the logits by X: above 1 the model is less sure
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Let the weights go on learning from the text, segment after segment; the checkpoint stays as it is
    #[arg(long, conflicts_with = "protocol")]
    dynamic: bool,
    /// The learning rate of --dynamic [default: 5e-5]
    #[arg(long, value_name = "X", requires = "dynamic", allow_negative_numbers = true)]
    dynamic_rate: Option<f64>,
    /// How fast the weights go back to what training made them [default: 2e-3]
    #[arg(long, value_name = "X", requires = "dynamic", allow_negative_numbers = true)]
    dynamic_decay: Option<f64>,
    /// What is added to a gradient's root mean square before it divides [default: 2e-5]
    #[arg(long, value_name = "X", requires = "dynamic", allow_negative_numbers = true)]
    dynamic_epsilon: Option<f64>,
    /// Tokens between two updates [default: 5]
    #[arg(long, value_name = "N", requires = "dynamic")]
    segment: Option<usize>,
    /// Which weights learn [default: all]
    #[arg(long, value_enum, value_name = "GROUP", requires = "dynamic")]
    dynamic_update: Option<UpdateGroup>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Search the temperature, and of --dynamic and --cache what is not given, on the first 30,000 tokens of the validation
    /// split; then read the split with the best
    #[arg(long, conflicts_with_all = ["mc", "protocol"])]
    tune: bool,
}

impl AdaptArgs {
    /// Whether each flag that decides what is on was given.
    pub(super) fn given(&self) -> [(&'static str, bool); 4] {
        let temperature = ("--temperature", self.temperature.is_some());
        [temperature, ("--dynamic", self.dynamic), ("--cache", self.cache.is_given()), ("--tune", self.tune)]
    }

    /// What --tune is to search.
    pub(super) fn free(&self) -> Option<Free> {
        let [theta, lambda] = self.cache.free();
        self.tune.then_some(Free {
            temperature: self.temperature.is_none(),
            rate: self.dynamic_rate.is_none(),
            decay: self.dynamic_decay.is_none(),
            theta,
            lambda,
        })
    }

    /// What was asked for, with the defaults of the rest.
    ///
    /// # Errors
    /// If a number means nothing; names its flag.
    pub(super) fn settings(&self) -> Result<Adaptation> {
        let usual = DynamicSettings::default();
        let dynamic = self.dynamic.then(|| DynamicSettings {
            rate: self.dynamic_rate.unwrap_or(usual.rate),
            decay: self.dynamic_decay.unwrap_or(usual.decay),
            epsilon: self.dynamic_epsilon.unwrap_or(usual.epsilon),
            segment: self.segment.unwrap_or(usual.segment),
            update: self.dynamic_update.unwrap_or_default(),
        });
        let asked = Adaptation {
            temperature: self.temperature,
            dynamic,
            cache: self.cache.settings()?,
            tuned_tokens: None,
        };
        asked.validate()?;
        Ok(asked)
    }
}

/// The flags that ask for `adaptation`.
pub(super) fn flags(adaptation: &Adaptation) -> String {
    let mut flags = Vec::new();
    if let Some(DynamicSettings { rate, decay, epsilon, segment, update }) = adaptation.dynamic {
        flags.push(format!(
            "--dynamic --dynamic-rate {rate:e} --dynamic-decay {decay:e} --dynamic-epsilon {epsilon:e} --segment {segment}"
        ));
        if update != UpdateGroup::All {
            flags.push(format!("--dynamic-update {}", update.name()));
        }
    }
    flags.extend(adaptation.temperature.map(|temperature| format!("--temperature {temperature}")));
    if let Some(CacheSettings { window, theta, lambda }) = adaptation.cache {
        flags.push(format!("--cache {window} --cache-theta {theta} --cache-lambda {lambda}"));
    }
    flags.join(" ")
}
