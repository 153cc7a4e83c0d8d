"""minicons scores sentences of different lengths in one batch; `rhn score --reset line` scores the same lines.

    minicons_export.py RHN PLACE NAME…
"""

import json
import sys
import warnings
from pathlib import Path

import torch
import transformers
from client import near, run, scores
from minicons import scorer

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
LINES = {"shakespeare": ["ROMEO:", "What light through yonder window breaks?", "It is the east"]}
WORDS = ["the company said it", "the", "it is a <unk> of the new york stock exchange"]


def main():
    rhn, place, *names = sys.argv[1:]
    place = Path(place)
    for name in names:
        checkpoint, exported = place / name, place / "exported" / name
        run(rhn, "export", checkpoint, "--to", "transformers", exported)
        model = scorer.IncrementalLMScorer(str(exported), "cpu", trust_remote_code=True)
        rows_before = model.model.get_input_embeddings().num_embeddings
        lines = LINES.get(name, WORDS)
        text = place / "lines.txt"
        text.write_text("".join(line + "\n" for line in lines))
        rows = [json.loads(row) for row in run(rhn, "score", checkpoint, text, "--base", "e", "--reset", "line", "--json").splitlines()]
        rows = [row for row in rows if row.get("event") != "total"]
        found = model.token_score(lines, bos_token=True, surprisal=True)
        worst = 0
        for number, scored in enumerate(found, 1):
            wanted = [row["surprisal"] for row in rows if row["line"] == number][:-1]  # its line end is not asked for
            worst = max(worst, near([value for _, value in scored][1:], wanted, 1e-5, f"line {number}"))
        sums = model.sequence_score(lines, bos_token=True, reduction=lambda x: x.sum().item())
        wanted = [-sum([row["surprisal"] for row in rows if row["line"] == number][:-1]) for number in range(1, len(lines) + 1)]
        near(sums, wanted, 1e-5, "sequence_score")
        assert model.model.get_input_embeddings().num_embeddings == rows_before, "a row was added"
        probabilities = torch.stack(list(model.next_word_distribution(lines, bos_token=True))) if name != "shakespeare" else None
        if probabilities is not None:
            near(probabilities.exp().sum(-1).tolist(), [1.0] * len(lines), 1e-4, "next_word_distribution")
        print(json.dumps({"minicons": name, "lines": len(lines), "nats": worst}), flush=True)


if __name__ == "__main__":
    main()
