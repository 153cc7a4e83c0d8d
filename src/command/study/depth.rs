//! `rhn study depth`: plain and highway nets of growing depth on the same images (Srivastava, Greff and Schmidhuber,
//! 2015, section 3).

mod found;

use super::nets::{Net, NetArgs, activated, each_once};
use super::subject::report_directory;
use crate::command::output::json_line;
use crate::command::runs;
use crate::error::Error;
use crate::study::directory::StudyDirectory;
use clap::ValueEnum;
use found::{Found, draw, keep, summaries, table};

const AFTER_HELP: &str = "\
A net of depth D is a plain layer from the pixels, D − 1 plain or highway layers, and a softmax: 71
units where the layers are plain and 50 where they are highway layers, so that a layer has as many
weights. Losses are over all training images in a pass of their own; the published ones are the best
of 100 runs with settings drawn at random, read off the paper's figures.

Each net is a run in the study's directory: the same command goes on after Ctrl-C, and `rhn plot`,
`rhn eval` and the other studies take them.

Examples:
  rhn study depth                                    eight nets, 20 epochs each
  rhn study depth --quick                            three epochs: a look at it
  rhn study depth --depths 50,100 --epochs 400 --out studies/depth-400
  rhn study depth --depths 900 --kinds highway --transform-bias -4
  rhn study depth --trials 20 --out studies/search   random search, mean and spread of the best tenth";

/// First biases that are tried unless one is given: the first lets little through fifty layers, the second through a
/// hundred.
const BIASES: [f64; 2] = [-2.0, -4.0];

/// Train plain and highway nets of growing depth on images
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Hidden layers of the nets
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10,20,50,100")]
    depths: Vec<usize>,
    /// Kinds of nets
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', default_value = "plain,highway")]
    kinds: Vec<Kind>,
    /// The function of all layers [default: tanh; drawn with --trials]
    #[arg(long, value_enum)]
    activation: Option<ActivationChoice>,
    /// The transform gates' first bias [default: the better of −2 and −4, with the rate; drawn with --trials]
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    transform_bias: Option<f64>,
    #[command(flatten)]
    pub(super) nets: NetArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Plain,
    Highway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ActivationChoice {
    /// Hyperbolic tangent
    Tanh,
    /// max(0, x)
    Relu,
    /// One net with each
    Both,
}

impl ActivationChoice {
    fn each(self) -> &'static [&'static str] {
        match self {
            Self::Tanh => &["tanh"],
            Self::Relu => &["relu"],
            Self::Both => &["tanh", "relu"],
        }
    }
}

/// Trains, prints and keeps. Fails if the images cannot be had, or a run cannot be made.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let nets = args.nets()?;
    let study = args.nets.open("depth")?;
    let trained = study.train(&nets)?;
    let summaries = summaries(&nets, &trained);
    let directory = StudyDirectory::create(Some(&study.out), &study.out, "depth")?;
    let found = Found { study: "depth", nets: &trained, summaries: &summaries };
    keep(&directory, &found)?;
    draw(&directory, &found, args.nets.png)?;
    if args.nets.json {
        json_line(&mut std::io::stdout().lock(), &found)?;
    } else {
        runs::print(&table(&trained, &summaries))?;
    }
    report_directory(&directory);
    Ok(())
}

impl Args {
    fn nets(&self) -> Result<Vec<Net>, Error> {
        if let Some(depth) = self.depths.iter().find(|depth| **depth < 2) {
            return Err(Error::config(format!(
                "--depths {depth}: wanted at least 2, a plain layer and one more"
            )));
        }
        self.nets.refuse(&[("model.core.layers", "--depths"), ("model.core.mixing", "--kinds")])?;
        let is_searched = self.transform_bias.is_none() && !self.nets.gives("model.core.transform_bias")?;
        let biases = if is_searched { &BIASES[..] } else { &[] };
        let activations: Vec<Option<&str>> = match self.activation {
            Some(choice) => choice.each().iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let mut nets = Vec::new();
        for activation in activations {
            for kind in each_once(&self.kinds) {
                nets.extend(
                    each_once(&self.depths)
                        .into_iter()
                        .map(|depth| self.net(kind, depth, activation, biases)),
                );
            }
        }
        Ok(nets)
    }

    fn net(&self, kind: Kind, depth: usize, activation: Option<&str>, biases: &'static [f64]) -> Net {
        let mut usual = Vec::new();
        let mut settings = vec![format!("model.core.layers={}", depth - 1)];
        settings.extend(activation.into_iter().flat_map(activated));
        match kind {
            Kind::Plain => {
                usual.push("model.core.hidden_size=71".into());
                settings.push("model.core.mixing=plain".into());
            }
            Kind::Highway => {
                settings
                    .extend(self.transform_bias.map(|bias| format!("model.core.transform_bias={bias:?}")));
            }
        }
        let kind = if kind == Kind::Plain { "plain" } else { "highway" };
        let biases = if kind == "highway" { biases } else { &[] };
        let suffix = activation.filter(|_| self.activation == Some(ActivationChoice::Both));
        let suffix = suffix.map_or_else(String::new, |activation| format!("-{activation}"));
        Net { name: format!("{kind}-{depth}{suffix}"), kind, depth, usual, settings, biases }
    }
}
