//! `rhn run`: a run's directory in parts of a chosen size, and back.

use super::output::Meter;
use crate::error::{Error, Result};
use crate::run::packed::{find_parts, pack, unpack};
use crate::signals::Signals;
use std::io::Write;
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
A training state can be more than a link carries at once. The parts are a zip archive, cut: joined
they open with any program for zip. Each file's SHA-256 is in it and each part's beside it, so that
an unpacked run is the same to the bit, and goes on with --resume.

Examples:
  rhn run pack checkpoints/ptb-rhn --part-size 15MB     makes checkpoints/ptb-rhn.zip.001 …
  rhn run unpack ptb-rhn.zip.001 --out checkpoints/ptb-rhn
  rhn train checkpoints/ptb-rhn --resume";

/// Pack a run into parts of a chosen size, to carry it elsewhere, and unpack it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Pack a run's directory into parts
    Pack {
        /// The run's directory; it must not be training
        run: PathBuf,
        /// Bytes of a part: a number with kB, MB, GB, KiB, MiB or GiB
        #[arg(long, value_name = "SIZE", value_parser = size)]
        part_size: u64,
        /// What the parts are called but for .zip.001 and so on [default: the run's directory]
        #[arg(long, value_name = "NAME")]
        out: Option<PathBuf>,
    },
    /// Unpack a run from its parts
    Unpack {
        /// Parts; one is enough where the others lie beside it
        #[arg(value_name = "PART", required = true)]
        parts: Vec<PathBuf>,
        /// The directory of the run, which is made
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Bytes of `15MB`, of a thousand a kB, or `15MiB`, of 1,024 a KiB.
fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("wanted a number with kB, MB, GB, KiB, MiB or GiB, say 15MB".into()),
    };
    let bytes = text[..digits].parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match bytes {
        Some(bytes) if bytes >= 1_000 => Ok(bytes),
        Some(_) => Err("wanted at least 1kB".into()),
        None => Err("wanted a number with kB, MB, GB, KiB, MiB or GiB, say 15MB".into()),
    }
}

/// Packs or unpacks, and says what there is then.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let meter = Meter::of_bytes(match args.action {
        Action::Pack { .. } => "packing",
        Action::Unpack { .. } => "unpacking",
    });
    let told = &mut |done, total| {
        meter.set(done, total);
        signals.check()
    };
    let text = match &args.action {
        Action::Pack { run, part_size, out } => {
            let prefix = out.clone().map_or_else(|| prefix(run), Ok)?;
            let set = pack(run, &prefix, *part_size, told)?;
            let first = set.paths[0].display();
            format!("{} part(s) of {} bytes, {first} and so on\n", set.paths.len(), set.bytes()?)
        }
        Action::Unpack { parts, out } => {
            let files = unpack(&find_parts(parts)?, out, told)?;
            format!("{files} files, verified, in {}\n", out.display())
        }
    };
    drop(meter);
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The run's directory, without a slash at its end.
fn prefix(run: &Path) -> Result<PathBuf> {
    match run.file_name() {
        Some(name) => Ok(run.with_file_name(name)),
        None => Err(Error::config(format!("{}: has no name of its own; --out gives one", run.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("15MB", 15_000_000), ("1000", 1000), ("2 GiB", 2 << 30), ("64KiB", 1 << 16), ("3kB", 3000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MB",
            "999",
            "1.5MB",
            "-3MB",
            "5 parsecs",
            "99999999999999999999GB",
            "18446744073709551615kB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
