"""The checks of openai_client.sh: URL TOKEN RHN CHECKPOINT."""

import json
import subprocess
import sys

import openai

url, token, rhn, checkpoint = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=120)
name = client.models.list().data[0].id
assert client.models.retrieve(name).id == name


def sampled(prompt, tokens, seed, samples=1):
    command = [rhn, "sample", checkpoint, "--prompt", prompt, "--tokens", str(tokens), "--seed", str(seed)]
    command += ["--samples", str(samples), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["text"] for line in output.splitlines()]


def fails(kind, **fields):
    try:
        client.completions.create(**({"model": name, "prompt": "x"} | fields))
    except kind as error:
        assert error.body["message"] and error.body["type"], error.body
        return error
    raise AssertionError(f"{fields} did not fail")


# One prompt: the text of rhn sample, twice.
for _ in range(2):
    answer = client.completions.create(model=name, prompt="ROMEO:", max_tokens=60, seed=7)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert [choice.text for choice in answer.choices] == sampled("ROMEO:", 60, 7)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 60

# Several prompts, several choices, echo, logprobs.
answer = client.completions.create(
    model=name, prompt=["ROMEO:", "JULIET:"], n=2, max_tokens=20, seed=3, echo=True, logprobs=2, temperature=0.7
)
assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
for choice in answer.choices:
    prompt = "ROMEO:" if choice.index < 2 else "JULIET:"
    assert choice.text.startswith(prompt)
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:at])) for at in range(len(logprobs.tokens))]
    assert len(logprobs.tokens) == len(prompt) + 20 == len(logprobs.token_logprobs) == len(logprobs.top_logprobs)
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert value <= 0 and top[token] == value and 2 <= len(top) <= 3

# Token ids give what their text gives.
ids = [[5, 6, 7], [8]]
answer = client.completions.create(model=name, prompt=ids, max_tokens=5, seed=1, temperature=0)
assert len(answer.choices) == 2 and answer.usage.prompt_tokens == 4

# A stream is the same text in parts, and ends with the counts.
whole = client.completions.create(model=name, prompt="MERCUTIO:", max_tokens=50, seed=11, stop=["\n\n", "☃"])
chunks = list(
    client.completions.create(
        model=name, prompt="MERCUTIO:", max_tokens=50, seed=11, stop=["\n\n", "☃"], stream=True,
        stream_options={"include_usage": True},
    )
)
assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
assert chunks[-1].usage == whole.usage and not chunks[-1].choices
assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
# A stream that is left.
with client.completions.create(model=name, prompt="A", max_tokens=2000, stream=True) as stream:
    next(iter(stream))
# The extras.
extra = {"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.1}
client.completions.create(model=name, prompt="A", max_tokens=5, extra_body=extra, user="me", logit_bias={}, best_of=1)

# Errors have their classes.
assert fails(openai.BadRequestError, temperature=-1).param == "temperature"
assert fails(openai.BadRequestError, presence_penalty=1.0).param == "presence_penalty"
assert fails(openai.BadRequestError, logprobs=50).param == "logprobs"
assert fails(openai.NotFoundError, model="gpt-3.5-turbo-instruct").code == "model_not_found"
assert fails(openai.BadRequestError, extra_body={"tempreature": 1}).param == "tempreature"
client = client.with_options(api_key="another")
fails(openai.AuthenticationError)
