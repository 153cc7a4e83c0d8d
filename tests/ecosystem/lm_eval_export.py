"""lm_eval's `hf` model on a task that is made here: one document a text, and one choice between two continuations.

    lm_eval_export.py RHN PLACE NAME:TEXT…
"""

import json
import math
import subprocess
import sys
from pathlib import Path

from client import near, run, scores

ROLLING = """
task: local_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: " "
metric_list:
  - metric: acc
"""


def evaluate(exported, tasks, name, out):
    """Results and logged samples of one task."""
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "2", "--tasks", name]
    command += ["--include_path", str(tasks), "--output_path", str(out), "--log_samples"]
    command += ["--model_args", f"pretrained={exported},trust_remote_code=True,dtype=float32,max_length=4096"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(max(out.rglob("results_*.json")).read_text())["results"][name]
    samples = [json.loads(line) for line in max(out.rglob(f"samples_{name}_*.jsonl")).read_text().splitlines()]
    return results, samples


def nats(rhn, checkpoint, place, text):
    """The sum over a text's tokens, `<eos>` included where the text has a line end."""
    file = place / "scored.txt"
    file.write_text(text)
    rows = scores(rhn, checkpoint, file)
    if rows and rows[-1]["token"] == "<eos>" and not text.endswith("\n"):
        rows = rows[:-1]  # an unfinished line: its end is not in the export's ids
    return sum(row["surprisal"] for row in rows)


def main():
    rhn, place, *pairs = sys.argv[1:]
    place = Path(place)
    for pair in pairs:
        name, text = pair.split(":")
        checkpoint, exported = place / name, place / "exported" / name
        run(rhn, "export", checkpoint, "--to", "transformers", exported)
        tasks = place / "tasks" / name
        tasks.mkdir(parents=True)
        documents = [(place / text).read_text().strip(), "the"]  # no white space at the edges
        rolling, choice = tasks / "rolling.jsonl", tasks / "choice.jsonl"
        rolling.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
        question = {"text": "it is", "choices": ["the company", "a"], "label": 0}
        # The harness puts a beginning before documents alone: here the text has it.
        choice.write_text(json.dumps(question | {"text": "<eos>" + question["text"]}) + "\n")
        (tasks / "rolling.yaml").write_text(ROLLING.format(file=rolling))
        (tasks / "choice.yaml").write_text(CHOICE.format(file=choice))

        results, samples = evaluate(exported, tasks, "local_text", place / "out" / name / "text")
        ours = [nats(rhn, checkpoint, place, document) for document in documents]
        samples.sort(key=lambda sample: sample["doc_id"])
        theirs = [-float(sample["filtered_resps"][0] if not isinstance(sample["filtered_resps"][0], list) else sample["filtered_resps"][0][0]) for sample in samples]
        worst = near(theirs, ours, 1e-5, "documents")
        size = sum(len(document.encode()) for document in documents)
        near([results["bits_per_byte,none"]], [sum(ours) / math.log(2) / size], 1e-5, "bits_per_byte")

        _, samples = evaluate(exported, tasks, "local_choice", place / "out" / name / "choice")
        theirs = [-float(response[0][0] if isinstance(response[0], list) else response[0]) for response in samples[0]["resps"]]
        before = nats(rhn, checkpoint, place, question["text"])
        ours = [nats(rhn, checkpoint, place, f"{question['text']} {option}") - before for option in question["choices"]]
        worst = max(worst, near(theirs, ours, 1e-5, "choices"))
        print(json.dumps({"lm_eval": name, "nats": worst}), flush=True)


if __name__ == "__main__":
    main()
