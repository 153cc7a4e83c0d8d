#!/usr/bin/env bash
# One would expect a format made for safety to notice that its data was damaged on disk or on the way.
# A safetensors file has no checksum: with one bit of a weight flipped, safetensors 0.8.0 for Python loads it without a
# word and returns another number (here 1.0 becomes 0.5, or infinity). Only the header's JSON and lengths are checked.
# It matters here because a checkpoint must be whole or refused: a manifest keeps the SHA-256 of every file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > finding.py <<'PY'
import numpy as np
from safetensors.numpy import load_file, save_file

save_file({"weight": np.ones(1000, np.float32)}, "model.safetensors")
whole = open("model.safetensors", "rb").read()
data = len(whole) - 4000
loaded = changed = 0
values = set()
for bit in range(0, 32000, 97):  # all positions within a number come up
    damaged = bytearray(whole)
    damaged[data + bit // 8] ^= 1 << bit % 8
    open("damaged.safetensors", "wb").write(damaged)
    weight = load_file("damaged.safetensors")["weight"]
    loaded += 1
    changed += int((weight != 1).sum() == 1)
    values.update(weight[weight != 1].tolist())
print(f"{loaded} damaged files, {changed} loaded with one wrong weight")
print("among them:", *[value for value in (0.5, float("inf")) if value in values])
PY
found=$(venv/bin/python finding.py)
echo "$found"
wanted='330 damaged files, 330 loaded with one wrong weight
among them: 0.5 inf'
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
