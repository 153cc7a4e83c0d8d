"""What the checks share: the numbers of `rhn` for a text, and comparisons that say what was found."""

import json
import subprocess
import sys
from pathlib import Path


def run(rhn, *arguments):
    """What `rhn` prints."""
    return subprocess.run([rhn, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def scores(rhn, checkpoint, file):
    """Rows of `rhn score` in nats: token and surprisal of each token of the file."""
    rows = [json.loads(line) for line in run(rhn, "score", checkpoint, file, "--base", "e", "--json").splitlines()]
    return [row for row in rows if row.get("event") != "total"]


def greedy(rhn, checkpoint, prompt, tokens, file):
    """What `rhn sample` writes after the prompt at temperature 0."""
    file.write_text(prompt)
    made = run(rhn, "sample", checkpoint, "--prompt-file", file, "--temperature", "0", "--tokens", tokens, "--json")
    return json.loads(made)["text"]


def run_example(exported):
    """Runs the example in the README of an export, from within it."""
    code = (exported / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", f"DIR = '.'\n{code}"], cwd=exported, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]


def reference_logits(checkpoint, ids):
    """Logits after each of `ids`, (tokens, vocabulary), by the reference model; None where that lacks a setting."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
    from load import load, logits_in_parts

    core = json.loads((checkpoint / "config.json").read_text())["core"]
    if any(core.get(key) is not None for key in ("peephole", "coupled", "first_layer_carry")):
        return None  # it has the published variants alone
    model, _ = load(checkpoint, torch.float32)
    with torch.inference_mode():
        return torch.cat(list(logits_in_parts(model, torch.as_tensor(ids))))


def near(found, wanted, tolerance, what):
    """Holds two lists of numbers to each other; gives the largest difference, relative where numbers exceed 1."""
    found, wanted = [float(number) for number in found], [float(number) for number in wanted]
    assert len(found) == len(wanted), f"{what}: {len(found)} numbers, wanted {len(wanted)}"
    worst = max((abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, wanted)), default=0.0)
    assert worst <= tolerance, f"{what}: {worst} apart, wanted {tolerance}"
    return worst
