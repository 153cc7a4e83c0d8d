"""rhn beside PyTorch, pair by pair, as a Markdown table.

    python compare.py [--rows NAME …] [--pairs 5] [--rhn ../../target/release/rhn] [--python /path/to/python]

Each pair measures both sides one after the other, each in a process of its own, and the side that goes first changes
from pair to pair: what slows the machine down for minutes slows both. A ratio is rhn's median over the peer's, within
a pair. Every measurement is also written to --log, one JSON object a line. Needs nothing but Python and what the peers
need; run it on a machine that does nothing else.
"""
import argparse, json, os, re, statistics, subprocess, sys, tempfile
from pathlib import Path
import training

HERE = Path(__file__).resolve().parent

C2W = 'model.embedding={kind="char-lstm",char_size=25,char_hidden=100,word_size=300}'

# Name: what the table says, the arguments of `rhn bench`, what is measured, the peer and its arguments. For rows of
# training.TRAININGS, of `rhn train`; a rate's unit is said here if it is not tokens.
ROWS = {
    "train": ("ptb-rhn, training", "ptb-rhn", "train", "pytorch_rhn.py", "--mode eager"),
    "train-compile": ("ptb-rhn, training", "ptb-rhn", "train", "pytorch_rhn.py", "--mode compile"),
    "train-bf16": ("ptb-rhn, training", "ptb-rhn", "train", "pytorch_rhn.py", "--mode bf16"),
    "train-compile-bf16": ("ptb-rhn, training", "ptb-rhn", "train", "pytorch_rhn.py", "--mode compile-bf16"),
    "enwik8": ("enwik8-rhn, training", "enwik8-rhn", "train", "pytorch_rhn.py", "--shape enwik8 --mode eager"),
    "enwik8-bf16": ("enwik8-rhn, training", "enwik8-rhn", "train", "pytorch_rhn.py", "--shape enwik8 --mode bf16"),
    "shakespeare": ("shakespeare, training", "shakespeare", "train", "pytorch_rhn.py", "--shape shakespeare --mode eager"),
    "shakespeare-compile": ("shakespeare, training", "shakespeare", "train", "pytorch_rhn.py",
                            "--shape shakespeare --mode compile"),
    "kim": ("ptb-char-cnn-small, training", "ptb-char-cnn-small", "train", "pytorch_char_cnn.py", "--mode eager"),
    "kim-distinct": ("ptb-char-cnn-small, training", "ptb-char-cnn-small", "train", "pytorch_char_cnn.py",
                     "--distinct --mode eager"),
    **{f"{cell}-{size}": (f"{name} 2 × {size} on words, training",
                          f"ptb-char-cnn-small --set model.embedding.kind=word "
                          f'--set model.core={{kind="{cell}",layers=2,hidden_size={size}}}',
                          "train", "pytorch_cells.py", f"--cell {cell} --size {size} --mode eager")
       for cell, name in [("lstm", "LSTM"), ("gru", "GRU"), ("hlstm", "Highway LSTM")] for size in [300, 650]},
    "char-lstm": ("LSTM 2 × 300 on words by char LSTMs, training", f"ptb-char-cnn-small --set {C2W}", "train",
                  "pytorch_char_lstm.py", "--mode eager"),
    "vae": ("shakespeare-vae, training", "shakespeare-vae", "train", "pytorch_vae.py", "--mode eager"),
    "classify": ("errors-classify, training (sentences/s)", "errors-classify", "train", "pytorch_classify.py",
                 "--mode eager"),
    "nbest": ("rescore, LSTM 200, training (tokens of references/s)", "rescore", "train", "pytorch_nbest.py",
              "--mode eager"),
    "char-lstm-compile": ("LSTM 2 × 300 on words by char LSTMs, training", f"ptb-char-cnn-small --set {C2W}", "train",
                          "pytorch_char_lstm.py", "--mode compile"),
    "vae-compile": ("shakespeare-vae, training", "shakespeare-vae", "train", "pytorch_vae.py", "--mode compile"),
    "classify-compile": ("errors-classify, training (sentences/s)", "errors-classify", "train", "pytorch_classify.py",
                         "--mode compile"),
    "nbest-compile": ("rescore, LSTM 200, training (tokens of references/s)", "rescore", "train", "pytorch_nbest.py",
                      "--mode compile"),
    "sample": ("ptb-rhn, sampling", "ptb-rhn", "sample", "pytorch_rhn.py", "--mode eager"),
    "sample-compile": ("ptb-rhn, sampling", "ptb-rhn", "sample", "pytorch_rhn.py", "--mode compile"),
    "sample-bf16": ("ptb-rhn, sampling", "ptb-rhn", "sample", "pytorch_rhn.py", "--mode bf16"),
    "stream": ("ptb-rhn, stream evaluation", "ptb-rhn", "stream", "pytorch_rhn.py", "--mode eager"),
    "stream-bf16": ("ptb-rhn, stream evaluation", "ptb-rhn", "stream", "pytorch_rhn.py", "--mode bf16"),
}


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--repeats", type=int, default=5, help="of each measurement in a pair [default: 5]")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--rhn", default=HERE.parent.parent / "target/release/rhn")
    p.add_argument("--python", default=sys.executable, help="one that has PyTorch")
    p.add_argument("--precision", default="f32", help="rhn's numbers [default: f32]")
    p.add_argument("--bf16-rows-precision", default="f32", help="rhn's numbers in rows where the peer's are bf16")
    p.add_argument("--log", type=Path, default=Path("compare.jsonl"))
    return p.parse_args()


def run(command):
    """The JSON object that a command prints."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(map(str, command))}")
    return json.loads(done.stdout)


def measure_rhn(a, name, row):
    _, recipe, what, _, _ = row
    precision = a.bf16_rows_precision if name.endswith("bf16") else a.precision
    if name in a.trainings:
        return {"precision": precision, **a.trainings[name].measure(a, recipe, precision)}
    found = run([a.rhn, "bench", *recipe.split(), "--only", what, "--json", "--repeats", a.repeats,
                 "--threads", a.threads, "--precision", precision])
    return {"precision": precision, **found[what]}


def measure_peer(a, name, row):
    _, _, what, script, arguments = row
    further = a.trainings[name].peer if name in a.trainings else a.text if name.startswith("char-lstm") else []
    return run([a.python, "-B", HERE / script, what, *arguments.split(), *further, "--json", "--repeats", a.repeats,
                "--threads", a.threads])


def penn_treebank(a):
    """Where the words of the char-lstm row are, if they are here: rhn bench then reads them too, else both make words up."""
    listed = subprocess.run([a.rhn, "data", "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(r"found: (.*ptb\.train\.txt)", listed)
    return ["--corpus", found[1]] if found else []


def pairs(a, name):
    """Measures both sides `--pairs` times, in turns."""
    sides = {"rhn": measure_rhn, "peer": measure_peer}
    found = []
    for pair in range(a.pairs):
        order = ["rhn", "peer"] if pair % 2 == 0 else ["peer", "rhn"]
        both = {side: sides[side](a, name, ROWS[name]) for side in order}
        found.append(both)
        with a.log.open("a") as log:
            log.write(json.dumps({"row": name, "pair": pair, "first": order[0], **both}) + "\n")
        rates = {side: both[side]["tokens_per_second"] for side in sides}
        print(f"{name} {pair + 1}/{a.pairs}: {rates['rhn']:,.0f} and {rates['peer']:,.0f} tokens/s, "
              f"{rates['rhn'] / rates['peer']:.2f} times", file=sys.stderr)
    return found


def spread(values, form):
    low, high = min(values), max(values)
    return f"{format(statistics.median(values), form)} ({format(low, form)} – {format(high, form)})"


def line(name, found):
    about, _, _, _, arguments = ROWS[name]
    rates = [[both[side]["tokens_per_second"] for both in found] for side in ("rhn", "peer")]
    ratios = [ours / theirs for ours, theirs in zip(*rates)]
    memory = [max(both[side].get("peak_memory_mib", 0) for both in found) for side in ("rhn", "peer")]
    mode = arguments.split("--mode ")[1]
    if "--distinct" in arguments:
        mode += ", letters of different words"
    cells = [about, found[0]["rhn"]["precision"], spread(rates[0], ",.0f"), mode, spread(rates[1], ",.0f"),
             spread(ratios, ".2f"), " ".join(f"{ratio:.2f}" for ratio in ratios), f"{memory[0]:,} / {memory[1]:,}"]
    return "| " + " | ".join(cells) + " |"


def main():
    a = parse()
    with tempfile.TemporaryDirectory() as directory:
        a.trainings = {name: training.Training(a, name, Path(directory)) for name in a.rows if training.takes(name)}
        a.text = penn_treebank(a)
        found = {name: pairs(a, name) for name in a.rows}
    version = next(iter(found.values()))[0]["peer"]["torch"]
    print(f"{a.threads} threads, PyTorch {version}; medians of {a.pairs} pairs of {a.repeats} repeats\n")
    print("| tokens/s | numbers | rhn | PyTorch | | median ratio | pair by pair | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, both in found.items():
        print(line(name, both))


main()
