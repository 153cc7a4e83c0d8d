"""The checks of lm_eval_server.sh: URL RHN CHECKPOINT WORK.

Tasks are written to WORK and run by lm_eval, one request at a time and four at once: the perplexity of documents, the
choice between two endings, and texts up to an end. The tokenizer is the checkpoint's own `tokenizer.json`, wrapped so that
transformers loads it. With --words tokens are words.
"""

import json
import math
import os
import pathlib
import subprocess
import sys

url, rhn, checkpoint, work, *words = sys.argv[1:]
is_words = words == ["--words"]
work = pathlib.Path(work)
os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(work / "hf")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

if is_words:
    DOCUMENTS = ["the copyright owner or entity authorized by\nthe copyright owner", "You may add", "of the Work"]
    PAIRS = [("You may", " add", " or"), ("the copyright", " owner", " any"), ("of the", " Work", " You")]
else:
    DOCUMENTS = ["First Citizen:\nBefore we proceed any further, hear me speak.", "What say you?", "O Romeo, Romeo!"]
    PAIRS = [("To be, or not", " to be", " qzx vkj"), ("Good", " night", " xjqz")]

# The tokenizer as lm_eval reads it, with a begin and an end: the line end. That of words ends every text by <eos>, a context
# too, which the one of an export does not.
if is_words:
    subprocess.run([rhn, "export", checkpoint, "--to", "transformers", str(work / "tokenizer")], check=True)
else:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(pathlib.Path(checkpoint) / "tokenizer.json"),
        bos_token="\n", eos_token="\n", unk_token="<unk>", clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(work / "tokenizer")

(work / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
pairs = [{"context": c, "good": g, "bad": b} for c, g, b in PAIRS]
(work / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
task = "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {work}/{file}\ntest_split: test\n"
(work / "documents.yaml").write_text(
    "task: rhn_documents\n" + task.format(work=work, file="documents.jsonl")
    + "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
    + "metric_list:\n  - metric: word_perplexity\n  - metric: byte_perplexity\n  - metric: bits_per_byte\n"
)
(work / "pairs.yaml").write_text(
    "task: rhn_pairs\n" + task.format(work=work, file="pairs.jsonl")
    + "output_type: multiple_choice\ndoc_to_text: '{{context}}'\ndoc_to_choice: '{{[good, bad]}}'\n"
    + "doc_to_target: 0\ntarget_delimiter: ''\nmetric_list:\n  - metric: acc\n"
)
(work / "generate.yaml").write_text(
    "task: rhn_generate\n" + task.format(work=work, file="pairs.jsonl")
    + "output_type: generate_until\ndoc_to_text: '{{context}}'\ndoc_to_target: '{{good}}'\n"
    + "generation_kwargs:\n  until: ['\\n']\n  max_gen_toks: 20\n  temperature: 0\n"
    + "metric_list:\n  - metric: exact_match\n"
)


def score(text, context=None):
    """Nats of a text by rhn score, after a line end and the context; without the end of a last line that has none, which
    lm_eval does not send."""
    (work / "text").write_text(text)
    command = [rhn, "score", checkpoint, str(work / "text"), "--base", "e", "--json"]
    if context is not None:
        (work / "context").write_text(context)
        command += ["--context", str(work / "context")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [row for row in map(json.loads, output.splitlines()) if row.get("event") != "total"]
    if is_words:
        assert rows.pop()["token"] == "<eos>"
    return sum(row["surprisal"] for row in rows)


def close(found, wanted):
    assert math.isclose(found, wanted, rel_tol=1e-5, abs_tol=1e-4), f"{found} is not {wanted}"


nats = [score(text) for text in DOCUMENTS]
likelihoods = [[-score(ending, context) for ending in endings] for context, *endings in PAIRS]
name = pathlib.Path(checkpoint).name
outcomes = []
for at_once in (1, 4):
    result = simple_evaluate(
        model="local-completions",
        model_args={
            "model": name, "base_url": f"{url}/v1/completions", "tokenizer": str(work / "tokenizer"),
            "num_concurrent": at_once, "max_retries": 1, "tokenized_requests": True, "max_length": 2048,
        },
        tasks=["rhn_documents", "rhn_pairs", "rhn_generate"],
        task_manager=TaskManager(include_path=str(work), include_defaults=False),
        log_samples=True, bootstrap_iters=0, batch_size=1 if at_once == 1 else 4,
    )
    found = result["samples"]["rhn_documents"]
    for sample, wanted in zip(sorted(found, key=lambda sample: sample["doc_id"]), nats):
        close(-float(sample["resps"][0][0] if isinstance(sample["resps"][0], list) else sample["resps"][0]), wanted)
    total = sum(nats) / sum(len(text.encode()) for text in DOCUMENTS)
    close(result["results"]["rhn_documents"]["bits_per_byte,none"], total / math.log(2))
    for sample in result["samples"]["rhn_pairs"]:
        for response, wanted in zip(sample["resps"], likelihoods[sample["doc_id"]]):
            close(float(response[0][0]), wanted)
    assert is_words or result["results"]["rhn_pairs"]["acc,none"] == 1.0  # the words are trained for seconds
    texts = [sample["resps"][0][0] for sample in sorted(result["samples"]["rhn_generate"], key=lambda s: s["doc_id"])]
    assert all(isinstance(text, str) and "\n" not in text for text in texts), texts
    outcomes.append(texts)
assert outcomes[0] == outcomes[1], outcomes
print(f"{name}: {len(nats)} documents of {sum(nats):.4f} nats, {len(PAIRS)} pairs of endings")
