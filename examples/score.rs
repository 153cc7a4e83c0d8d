//! Prints the surprisal of each token of a text in bits:
//! `cargo run --release --example score -- checkpoints/shakespeare "To be, or not to be"`.

use candle_core::Device;
use rhn::data::Text;
use rhn::eval::score::Scorer;
use rhn::predict::Loaded;
use rhn_kernels::precision::Precision;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let checkpoint = arguments.next().unwrap_or_else(|| "checkpoints/shakespeare".into());
    let text = arguments.next().unwrap_or_else(|| "To be, or not to be".into());

    // A directory, or an address such as hf://owner/name; damaged or mixed-up files are refused.
    let loaded = Loaded::open(&checkpoint, Precision::F32, &Device::Cpu)?;
    let encoded = loaded.tokenizer.encode(&Text::new(text.into_bytes(), "the argument"))?;
    let tokens: Vec<u32> = (0..encoded.tokens.len()).map(|index| encoded.tokens.get(index)).collect();

    // A line's end is the context of the first token, as `rhn score` has it.
    let mut scorer = Scorer::new(&loaded.model, loaded.tokenizer.line_end_id())?;
    for (token, nats) in tokens.iter().zip(scorer.nats(&tokens)?) {
        let bits = nats.map_or("-".into(), |nats| format!("{:.3}", nats / std::f64::consts::LN_2));
        println!("{bits}\t{:?}", loaded.tokenizer.token(*token));
    }
    Ok(())
}
