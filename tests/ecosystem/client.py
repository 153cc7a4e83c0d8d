"""What the checks share: the numbers of `rhn` for a text, and comparisons that say what was found."""

import json
import subprocess


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


def near(found, wanted, tolerance, what):
    """Holds two lists of numbers to each other; gives the largest difference, relative where numbers exceed 1."""
    found, wanted = list(found), list(wanted)
    assert len(found) == len(wanted), f"{what}: {len(found)} numbers, wanted {len(wanted)}"
    worst = max((abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, wanted)), default=0.0)
    assert worst <= tolerance, f"{what}: {worst} apart, wanted {tolerance}"
    return worst
