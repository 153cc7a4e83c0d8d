//! stub
/// stub
#[derive(Debug, clap::Args)]
pub struct Args {
    checkpoint: String,
}
/// s
pub fn run(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
