"""rhn's rate in trainings that `rhn bench` does not take, for compare.py: a short `rhn train`, cut into parts.

`train.evaluate_steps` ends each part with an event of metrics.jsonl that has the tokens so far and the speed of training
alone, from which the tokens and the seconds of the part follow: start-up, validation and saving are not in it. The first
part is the warm-up. Validation is kept small, since nothing of it is used.
"""
import json, os, statistics, subprocess, sys
from pathlib import Path

# Of the built-in Shakespeare a few lines are for validation; the training split is the same.
FEW_LINES = "corpus.split=[90.0,0.1,9.9]"
# What the peers read of it: as many different words as Penn Treebank has.
LANGUAGE_MODEL = ["text", "--corpus", "shakespeare", "--max-steps", 1, "--set", "corpus.unit=word",
                  "--set", "corpus.vocab_size=10000", "--set", 'model.embedding={kind="word"}',
                  "--set", 'model.core={kind="lstm",hidden_size=200}', "--set", FEW_LINES]


def rhn(a, *arguments, **settings):
    """Runs it; its peak memory in MiB."""
    command = [str(part) for part in (a.rhn, *arguments)]
    done = subprocess.Popen(command, **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **settings})
    complaint = done.stderr.read().decode()
    _, status, used = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}\n{complaint}")
    return used.ru_maxrss // 1024


def vae(a, directory, steps):
    """What `rhn train` and the peer are told beside their own arguments."""
    return ["--set", FEW_LINES], []


def classify(a, directory, steps):
    """Labelled sentences of Shakespeare, for both sides."""
    directory.mkdir()
    errors = ["data", "errors", "shakespeare", "--kind", "character", "--kind", "double", "--labels", 0.4]
    for split, count in {"train": [], "valid": ["--count", 64]}.items():
        with (directory / f"{split}.tsv").open("w") as file:
            rhn(a, *errors, "--split", split, *count, stdout=file)
    return ["--corpus", directory], ["--corpus", directory / "train.tsv"]


def nbest(a, directory, steps):
    """Lists of Shakespeare's lines, a different one for each that a training reads; rhn goes on from a model of one step."""
    lists, few, model = (directory / name for name in ("lists", "few", "model"))
    rhn(a, "data", "lists", "shakespeare", "--out", lists, "--count", 8 * (steps + 2))
    rhn(a, "data", "lists", "shakespeare", "--out", few, "--count", 8)
    for name in ("valid.tsv", "valid.text"):
        (few / name).replace(lists / name)
    for name in ("test.tsv", "test.text"):
        (lists / name).unlink()
    rhn(a, "train", *LANGUAGE_MODEL, "--out", model, "--threads", a.threads)
    return ["--corpus", lists, "--init-from", model], ["--corpus", lists]


# Row: the steps of a part, a second or so on two cores, and what prepares it.
TRAININGS = {"vae": (60, vae), "classify": (50, classify), "nbest": (3, nbest)}


def takes(row):
    return row.removesuffix("-compile") in TRAININGS


class Training:
    """A row's training; what both sides read is made once and lies in the directory."""

    def __init__(self, a, name, directory):
        self.steps, prepare = TRAININGS[name.removesuffix("-compile")]
        self.runs = [directory / f"{name}-{pair}" for pair in range(a.pairs)]
        self.all_steps = self.steps * (a.repeats + 1)
        self.rhn, peer = prepare(a, directory / name, self.all_steps)
        self.peer = ["--runs", self.steps, *peer]

    def measure(self, a, recipe, precision):
        run = self.runs.pop()  # a directory of its own for each run
        memory = rhn(a, "train", recipe, *self.rhn, "--out", run, "--threads", a.threads, "--precision", precision,
                     "--set", f"train.evaluate_steps={self.steps}", "--max-steps", self.all_steps + 1)
        rates = parts(run / "metrics.jsonl")
        return {"tokens_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates),
                "repeats": rates, "peak_memory_mib": memory}


def parts(metrics):
    """Tokens a second of every part but the first."""
    events = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [event for event in events if event["event"] == "evaluation"]
    done = [(row["tokens"], row["tokens"] / row["tokens_per_second"]) for row in rows]  # tokens and seconds so far
    return [(tokens - before) / (seconds - then) for (before, then), (tokens, seconds) in zip(done, done[1:])]
