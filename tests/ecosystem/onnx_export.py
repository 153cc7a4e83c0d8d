"""Checks the files, runs them, and holds their logits to the reference model and their surprisals to `rhn score`.

    onnx_export.py RHN PLACE NAME:TEXT…
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from client import near, reference_logits, run, run_example, scores
from tokenizers import Tokenizer


def zero(session, batch):
    return {i.name: np.zeros((batch, i.shape[1]), np.float32) for i in session.get_inputs() if i.name != "tokens"}


def open_checked(path):
    """A session for a file that the checker accepts, shapes inferred."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@torch.inference_mode()
def main():
    rhn, place, *pairs = sys.argv[1:]
    place = Path(place)
    for pair in pairs:
        name, text = pair.split(":")
        checkpoint, exported = place / name, place / "onnx" / name
        run(rhn, "export", checkpoint, "--to", "onnx", exported)
        step, sequence = open_checked(exported / "step.onnx"), open_checked(exported / "sequence.onnx")
        tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
        about = {entry.key: entry.value for entry in onnx.load(exported / "step.onnx").metadata_props}
        ids = torch.tensor([int(about["line_end_id"]), *tokenizer.encode((place / text).read_text()).ids])

        tokens = ids.numpy()[None]
        found, *left = sequence.run(None, {"tokens": tokens, **zero(sequence, 1)})
        reference = reference_logits(checkpoint, ids)
        wanted = found[0] if reference is None else reference.numpy()
        assert step.get_outputs()[0].shape == ["batch", wanted.shape[1]]
        worst = near(found[0].flatten(), wanted.flatten(), 1e-5, "sequence")
        state, one_by_one = zero(step, 1), []
        for token in ids.numpy():
            logits, *after = step.run(None, {"tokens": np.array([token]), **state})
            state = dict(zip(state, after))
            one_by_one.append(logits[0])
        worst = max(worst, near(np.array(one_by_one).flatten(), wanted.flatten(), 1e-5, "step"))
        for one, other in zip(left, state.values()):
            near(one.flatten(), other.flatten(), 1e-5, "state after the text")

        # Two rows, the second one token later, in two windows with the state handed on.
        rows = np.stack([tokens[0, :-1], tokens[0, 1:]])
        first, *middle = sequence.run(None, {"tokens": rows[:, :5], **zero(sequence, 2)})
        rest, *_ = sequence.run(None, {"tokens": rows[:, 5:], **dict(zip(zero(sequence, 2), middle))})
        near(np.concatenate([first, rest], 1)[0].flatten(), wanted[:-1].flatten(), 1e-5, "a batch in two windows")

        logits = torch.tensor(found[0])
        nats = -logits[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        rows = [(row["surprisal"], value) for row, value in zip(scores(rhn, checkpoint, place / text), nats.tolist())]
        assert len(rows) == len(ids) - 1
        near([ours for ours, _ in rows], [theirs for _, theirs in rows], 1e-5, "nats")
        run_example(exported)
        print(json.dumps({"onnxruntime": name, "tokens": len(ids), "logits": worst}), flush=True)


if __name__ == "__main__":
    main()
