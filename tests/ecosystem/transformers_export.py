"""One version of transformers: exports each model and holds what the library computes to `rhn`.

    transformers_export.py RHN PLACE NAME:TEXT…      checkpoints are PLACE/NAME, texts PLACE/TEXT
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import torch
import transformers
from client import greedy, near, reference_logits, run, run_example, scores
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)


def check_tokenizer(tokenizer, checkpoint, text):
    """The ids of the checkpoint's own tokenizer, and the text again; gives the ids."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    own = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert ids == own, f"ids {ids[:20]}, wanted {own[:20]}"
    decoded = tokenizer.decode(ids)
    words = tokenizer.decode(tokenizer("a b\n c", add_special_tokens=False)["input_ids"])
    unknown = tokenizer.unk_token_id in ids
    spaced = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    if not unknown:
        assert decoded in (text, spaced), f"{decoded!r}, wanted {text!r}"
    assert "\n" in words and not words.startswith(" "), words
    special = [tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert None not in special and special[3] not in special[:3]
    assert "\n" not in tokenizer.all_special_tokens
    return ids


@torch.inference_mode()
def check_logits(model, tokenizer, rhn, checkpoint, file, ids):
    """Logits of the reference model, surprisals of `rhn score`, the loss, padding on either side, the state in and out."""
    begin = torch.tensor([[tokenizer.bos_token_id, *ids]])
    logits = model(begin).logits[0]
    line_end = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode("\n").ids[0]
    wanted = reference_logits(checkpoint, [line_end, *ids])
    known = model.config.trained_vocab_size
    worst = None if wanted is None else near(logits[:, :known].flatten(), wanted.flatten(), 1e-5, "logits")
    assert logits[:, known:].max() < -9000
    nats = -logits[:-1].log_softmax(-1).gather(1, begin[0, 1:, None])[:, 0]
    rows = scores(rhn, checkpoint, file)
    assert len(rows) == len(ids)
    ours = [row["surprisal"] for row in rows]
    seen = [i for i, value in enumerate(ours) if value is not None]
    worst_nats = near([nats[i].item() for i in seen], [ours[i] for i in seen], 1e-5, "nats")
    loss = model(begin, labels=begin).loss.item()
    near([loss], [nats.mean().item()], 1e-6, "loss")
    pad = torch.full((1, 7), tokenizer.pad_token_id)
    mask = torch.ones_like(begin)
    left = model(torch.cat([pad, begin], 1), attention_mask=torch.cat([0 * pad, mask], 1)).logits[0, 7:]
    right = model(torch.cat([begin, pad], 1), attention_mask=torch.cat([mask, 0 * pad], 1)).logits[0, :-7]
    near(left.flatten(), logits.flatten(), 1e-6, "left padding")
    near(right.flatten(), logits.flatten(), 1e-6, "right padding")
    half = model(begin[:, :9])
    state = half.past_key_values
    rest = model(begin[:, 9:], past_key_values=state).logits[0]
    near(rest.flatten(), logits[9:].flatten(), 1e-6, "the state handed on")
    return worst, worst_nats


def check_generation(model, tokenizer, rhn, checkpoint, place, prompts):
    """Greedy text is that of `rhn sample`; with and without the state, in batches and by beams the same."""
    every = {"eos_token_id": None, "max_new_tokens": 40}

    def made(texts, **settings):
        given = tokenizer([tokenizer.bos_token + text for text in texts], return_tensors="pt", padding=True, add_special_tokens=False)
        out = model.generate(**given, **{**every, **settings})
        return out[:, given["input_ids"].shape[1] :].tolist()

    lengths = []
    count = model.register_forward_pre_hook(lambda _, args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True)
    one = [made([prompt], do_sample=False)[0] for prompt in prompts]
    count.remove()
    assert len(lengths) == 40 * len(prompts) and lengths.count(1) >= 39 * len(prompts), "texts are read again for every token"
    for prompt, ids in zip(prompts, one):
        wanted = greedy(rhn, checkpoint, prompt, 40, place / "prompt.txt")
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        text = tokenizer.decode(before + ids)[len(tokenizer.decode(before)) :]
        assert text.strip(" ") == wanted.strip(" "), f"{text!r}, wanted {wanted!r}"
    assert made(prompts, do_sample=False) == one, "a batch with padding gives another text"
    assert [made([p], do_sample=False, use_cache=False)[0] for p in prompts] == one, "without the state another text"
    beams = [made([prompt], num_beams=4, do_sample=False)[0] for prompt in prompts]
    assert [made([p], num_beams=4, do_sample=False, use_cache=False)[0] for p in prompts] == beams, "beams mix up states"
    assert made(prompts, num_beams=4, do_sample=False) == beams, "beams in a batch give another text"
    begun = tokenizer(tokenizer.bos_token + prompts[0], return_tensors="pt", add_special_tokens=False)["input_ids"]
    for use_cache in (True, False):
        after = model.generate(inputs_embeds=model.embedding(begun), do_sample=False, use_cache=use_cache, **every)
        assert after[0].tolist() == one[0], "from vectors another text"
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        drawn.append(made(prompts, do_sample=True, top_k=10, temperature=0.9, use_cache=use_cache))
    assert drawn[0] == drawn[1], "what is drawn depends on the state"
    several = made(prompts[:1], do_sample=True, num_return_sequences=3)
    assert len(several) == 3
    unknown = [tokenizer.unk_token_id, tokenizer.pad_token_id]
    assert not any(token in unknown for ids in [*one, *beams, *drawn[0], *several] for token in ids)


def check_saved(model, tokenizer, exported, place, begin, content):
    """What the library saves, it loads to the same model and tokenizer; a weight that is missing is an error."""
    again = place / "again"
    model.save_pretrained(again)
    tokenizer.save_pretrained(again)
    ids = [AutoTokenizer.from_pretrained(path, trust_remote_code=True)(content)["input_ids"] for path in (exported, again)]
    assert ids[0] == ids[1], "saved and loaded, another tokenizer"
    loaded = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
    with torch.inference_mode():
        assert torch.equal(loaded(begin).logits, model(begin).logits), "saved and loaded, another model"
    tied = model.config.tie_word_embeddings
    assert (loaded.lm_head.weight.data_ptr() == loaded.embedding.weight.data_ptr()) == tied
    assert ("lm_head.weight" in load_file(exported / "model.safetensors")) != tied
    broken = place / "broken"
    shutil.copytree(exported, broken)
    weights = load_file(exported / "model.safetensors")
    for name in ["lm_head.bias", "core.0.recurrent.weight", "embedding.weight"]:
        save_file({key: value for key, value in weights.items() if key != name}, broken / "model.safetensors", {"format": "pt"})
        try:
            AutoModelForCausalLM.from_pretrained(broken, trust_remote_code=True)
        except ValueError as error:
            assert "do not belong" in str(error), error
        else:
            raise AssertionError(f"{name} is missing, and nobody minds")
    shutil.rmtree(again)
    shutil.rmtree(broken)


def check_training(model, begin):
    """A step of gradient descent lowers the loss, and every weight gets a gradient."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    before = model(begin, labels=begin).loss
    before.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert model(begin, labels=begin).loss < before
    model.eval()


def main():
    rhn, place, *pairs = sys.argv[1:]
    place = Path(place)
    for pair in pairs:
        name, text = pair.split(":")
        checkpoint, exported = place / name, place / "exported" / name
        shutil.rmtree(exported, ignore_errors=True)
        run(rhn, "export", checkpoint, "--to", "transformers", exported)
        tokenizer = AutoTokenizer.from_pretrained(exported, trust_remote_code=True)
        model, info = AutoModelForCausalLM.from_pretrained(exported, trust_remote_code=True, output_loading_info=True)
        assert not any(info.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        assert model.dtype == torch.float32 and not model.training
        assert len(tokenizer) == model.get_input_embeddings().num_embeddings == model.config.vocab_size
        content = (place / text).read_text()
        ids = check_tokenizer(tokenizer, checkpoint, content)
        untrusting = AutoTokenizer.from_pretrained(exported, trust_remote_code=False)  # it needs no code of the directory
        assert untrusting(content, add_special_tokens=False)["input_ids"] == ids
        worst = check_logits(model, tokenizer, rhn, checkpoint, place / text, ids)
        prompts = ["ROMEO:\nWhat", "JULIET:", "A"] if name == "shakespeare" else ["the company said it", "the", "it is a"]
        check_generation(model, tokenizer, rhn, checkpoint, place, prompts)
        begin = torch.tensor([[tokenizer.bos_token_id, *ids[:30]]])
        check_saved(model, tokenizer, exported, place, begin, content)
        write = pipeline("text-generation", model=model, tokenizer=tokenizer)
        assert write("the ", max_new_tokens=5, do_sample=False)[0]["generated_text"].startswith("the")
        check_training(model, begin)
        run_example(exported)
        print(json.dumps({"transformers": transformers.__version__, "model": name, "tokens": len(ids), "logits": worst[0], "nats": worst[1]}), flush=True)


if __name__ == "__main__":
    main()
