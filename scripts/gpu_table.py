"""The table of scripts/gpu-check.sh, as Markdown, from the files that it left.

    python3 gpu_table.py DIR
"""
import json, sys
from pathlib import Path

# Of the shapes: recipe, peer's name, how many times the best peer of a kind rhn should be.
SHAPES = [("ptb-rhn", "ptb"), ("enwik8-rhn", "enwik8")]
PRECISIONS = ["f32", "tf32", "bf16", "bf16-steps"]  # the last without the persistent kernel


def read(path):
    """What a file holds; None if it is not there or is not one JSON object."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def rate(found):
    return f"{found['tokens_per_second']:,.0f} ({found['lowest']:,.0f} – {found['highest']:,.0f})"


def memory(found):
    return f"{found['peak_device_memory_mib']:,}" if found.get("peak_device_memory_mib") else "–"


def rows(folder, recipe, shape):
    """Training: who, rate, its multiple of eager PyTorch, an epoch's seconds, memory."""
    peers = {path.stem[len(f"peer-{shape}-"):]: read(path) for path in sorted(folder.glob(f"peer-{shape}-*.json"))}
    peers = {mode: found for mode, found in peers.items() if found and found["what"] == "train"}
    eager = peers.get("eager", {}).get("tokens_per_second")
    times = lambda found: f"{found['tokens_per_second'] / eager:.2f}" if eager else "–"
    for precision in PRECISIONS:
        found = read(folder / f"rhn-{recipe}-{precision}.json")
        if found:
            train = found["train"]
            yield [f"rhn, {precision}", rate(train), times(train), f"{train['epoch_seconds']:.1f}", memory(train)]
    for mode, found in peers.items():
        yield [f"PyTorch, {mode}", rate(found), times(found), "–", memory(found)]


def training(folder):
    for recipe, shape in SHAPES:
        table = list(rows(folder, recipe, shape))
        if table:
            print(f"\n| {recipe}, training | tokens/s | times eager | epoch, s | GPU MiB |\n| --- | --- | --- | --- | --- |")
            for row in table:
                print("| " + " | ".join(row) + " |")


def reading(folder):
    print("\n| ptb-rhn, batch 1 | rhn, f32 | rhn, bf16 | PyTorch, eager |\n| --- | --- | --- | --- |")
    for what in ["stream", "sample"]:
        ours = [(read(folder / f"rhn-ptb-rhn-{precision}.json") or {}).get(what) for precision in ["f32", "bf16"]]
        cells = [rate(found) if found else "–" for found in [*ours, read(folder / f"peer-ptb-{what}.json")]]
        print("| " + " | ".join([what, *cells]) + " |")


def machine(folder):
    found = [read(folder / f"rhn-ptb-rhn-{precision}.json") for precision in PRECISIONS]
    peaks = {}
    for one in filter(None, found):
        peaks.update(one["machine"]["gemm_peak_gflops"])
    first = next(filter(None, found), None)
    if first:
        peaks = ", ".join(f"{name} {peak / 1e3:.1f}" for name, peak in peaks.items())
        print(f"{first.get('gpu', 'unknown GPU')}; peak of products, TFLOP/s: {peaks}; "
              f"memory {first['machine']['memory_gb_per_second']:,.0f} GB/s")


def curve(folder):
    try:
        events = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return
    print("\n| epoch | train nats | valid perplexity | tokens/s |\n| --- | --- | --- | --- |")
    for event in events:
        if event["event"] == "epoch":
            print(f"| {event['epoch']} | {event['train_nats_per_token']:.4f} | {event['valid_perplexity']:.2f} | "
                  f"{event['tokens_per_second']:,.0f} |")


def main():
    folder = Path(sys.argv[1])
    machine(folder)
    training(folder)
    reading(folder)
    curve(folder)
    failed = folder / "failed"
    if failed.exists():
        print("\nFailed: " + ", ".join(failed.read_text().split()))


main()
