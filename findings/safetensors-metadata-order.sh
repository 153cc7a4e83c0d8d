#!/usr/bin/env bash
# One would expect the same tensors with the same metadata to be the same file: the format sorts its tensors.
# The entries of __metadata__ are in another order in every process. Twelve processes that save one tensor and eight entries
# with safetensors 0.8.0 for Python write files that differ, though their headers are equal once they are parsed.
# It matters here because checkpoints, teachers and compressed files are told apart by the SHA-256 of files, and a training that
# is repeated has to give the same one: a model has one entry, and a file with two keeps the SHA-256 of its numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > save.py <<'PY'
import sys
import numpy as np
from safetensors.numpy import save_file

entries = {"format": "pt", **{f"entry_{number}": str(number) for number in range(int(sys.argv[2]) - 1)}}
save_file({"weight": np.ones(4, np.float32)}, sys.argv[1], metadata=entries)
PY
for run in 1 2 3 4 5 6 7 8 9 10 11 12; do
    venv/bin/python save.py "one-$run.safetensors" 1
    venv/bin/python save.py "eight-$run.safetensors" 8
done
cat > finding.py <<'PY'
import json

for entries in ("one", "eight"):
    files = [open(f"{entries}-{run}.safetensors", "rb").read() for run in range(1, 13)]
    headers = [json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")]) for file in files]
    equal = all(header == headers[0] for header in headers)
    different = len(set(files))
    print(f"{entries}: {'one file' if different == 1 else 'different files'}, headers {'equal' if equal else 'unequal'} when parsed")
PY
found=$(venv/bin/python finding.py)
echo "$found"
wanted='one: one file, headers equal when parsed
eight: different files, headers equal when parsed'
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
