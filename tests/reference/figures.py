"""Are the figures of `rhn eval` and `rhn score` those of the text? Run by hand, with Python alone:

    python3 tests/reference/figures.py CHECKPOINT FILE [--rhn target/release/rhn]

Reads the rows of `rhn score CHECKPOINT FILE --json` and the file itself, and computes from these two alone: the nats of
the text, bits per character and byte over what was predicted, the perplexity over words, and the surprisal of each word
by the convention `leading`. Compares with what `rhn eval` and `rhn score --per line|word|document` print.

The first token differs on purpose: `score` predicts it after a line end, `eval` takes it for context. So `eval` reads a
line end and then the file, and must find the nats of all rows.
"""

import argparse
import json
import math
import re
import subprocess
import tempfile
from pathlib import Path


def run(program, *arguments):
    output = subprocess.run([program, *arguments], capture_output=True, text=True)
    if output.returncode != 0:
        raise SystemExit(output.stderr)
    return [json.loads(line) for line in output.stdout.splitlines()]


def close(name, found, wanted, tolerance=1e-4):
    good = found is not None and abs(found - wanted) <= tolerance * max(1.0, abs(wanted))
    print(f"{'same' if good else 'DIFFERENT':9} {name}: {found} here {wanted:.6f}")
    return good


def words_of(text, rows):
    """The nats of each word: what its tokens cost, and blanks of its line that are tokens of their own before it."""
    words = [[match.start(), match.end(), 0.0] for match in re.finditer(r"\S+", text)]
    for row in rows:
        spelled = text[row["start"] : row["end"]]
        letters = [at for at in range(row["start"], row["end"]) if not text[at].isspace()]
        if letters:
            owner = next(word for word in words if word[0] <= letters[-1] < word[1])
        elif "\n" in spelled or not spelled:
            continue  # a line end is a row of its own
        else:
            owner = next((word for word in words if word[0] >= row["end"]), None)
        if owner is not None and "\n" not in text[row["end"] : owner[0]]:
            owner[2] += row["surprisal"] or 0.0
    return words


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rhn", default="target/release/rhn")
    options = parser.parse_args()
    data = options.file.read_bytes()
    text = data.decode()
    same = ["--precision", "f64", "--json"]
    score = [options.rhn, "score", options.checkpoint, str(options.file), "--base", "e", *same]
    *rows, total = run(*score)
    for row in rows:
        assert data[row["start_byte"] : row["end_byte"]].decode(errors="replace") == row["text"] or "<0x" in row["text"]
    nats = sum(row["surprisal"] or 0.0 for row in rows)
    good = close("nats, all rows", total["surprisal"], nats)
    for per in ["line", "word", "document"]:
        *parts, _ = run(*score, "--per", per)
        good &= close(f"nats, by {per}", sum(part["surprisal"] or 0.0 for part in parts), nats)
        if per == "word" and not any(row["unknown"] for row in rows):
            found = {part["start"]: part["surprisal"] for part in parts if part["word"]}
            worst = max(abs(found[start] - cost) for start, _, cost in words_of(text, rows))
            good &= close("the word that differs most", worst, 0.0)

    with tempfile.NamedTemporaryFile(suffix=".txt") as after:
        after.write(b"\n" + data)
        after.flush()
        (evaluation,) = run(options.rhn, "eval", options.checkpoint, "--file", after.name, *same)
    tokens = sum(row["id"] is not None for row in rows)
    good &= close("tokens", evaluation["tokens"], tokens)
    good &= close("nats, eval", evaluation["nats_per_token"] * tokens, nats)
    if any(row["unknown"] and row["id"] is not None for row in rows):
        for name in ["bits_per_char", "bits_per_byte", "perplexity_words"]:
            assert evaluation.get(name) is None and evaluation[name + "_absent"], name
        print("letters hide behind <unk>: no figures over characters, bytes and words, and it says so")
    else:
        # What became a token, CR LF as LF, and where tokens are words one blank between two of a line.
        covered = [text[row["start"] : row["end"]] for row in rows if row["id"] is not None]
        if any("\r\n" in part for part in covered):
            covered = [part.replace("\r\n", "\n") for part in covered]
        read = "".join(covered)
        if not any(part == " " for part in covered) and " " in text and not any(part.startswith(" ") for part in covered):
            read = "".join(" ".join(line.split()) + "\n" * line.endswith("\n") for line in text.splitlines(keepends=True))
        bits = nats / math.log(2)
        good &= close("bits per char", evaluation["bits_per_char"], bits / len(read))
        good &= close("bits per byte", evaluation["bits_per_byte"], bits / len(read.encode()))
        if not any(row["unknown"] for row in rows):
            good &= close("perplexity over words", evaluation["perplexity_words"], math.exp(nats / len(text.split())))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
