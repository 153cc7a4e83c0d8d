#!/usr/bin/env bash
# A run's numbers as both of TensorBoard's readers see them, a resumed run included: its Python one, and the Rust one
# behind its server. Usage: tests/ecosystem/tensorboard.sh [path of the rhn program]
set -euo pipefail
rhn=$(realpath "${1:-target/release/rhn}")
folder=$(mktemp -d)
trap 'kill "${server:-}" 2> /dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tensorboard==2.21.0 tensorboard-data-server==0.7.2 setuptools==80.9.0
train() {
  "$rhn" train shakespeare --out runs/tiny --set model.core.hidden_size=16 --set train.epochs=2 --set train.batch_size=64 \
    --set train.evaluate_steps=100 "$@" > /dev/null 2>&1
}
train --tensorboard --max-steps 150
train --resume
venv/bin/tensorboard --logdir runs --port 16006 --load_fast=true --bind_all > server.log 2>&1 &
server=$!
cat > check.py <<'PYTHON'
import json, math, time, urllib.parse, urllib.request
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = [json.loads(line) for line in open("runs/tiny/metrics.jsonl")]
def wanted(kinds, key):
    return [(e["step"], e[key]) for e in events if e["event"] in kinds and e.get(key) is not None]
tags = {
    "train/nats_per_token": wanted(["step"], "train_nats_per_token"),
    "train/learning_rate": wanted(["step"], "learning_rate"),
    "valid/nats_per_token": wanted(["epoch", "evaluation"], "valid_nats_per_token"),
    "test/bits_per_char": wanted(["result"], "bits_per_char"),
}
def compare(reader, tag, found):
    same = len(found) == len(tags[tag]) and all(
        a == b and math.isclose(x, y, rel_tol=1e-6) for (a, x), (b, y) in zip(found, tags[tag]))
    print(reader, tag, len(found), "points", "ok" if same else "DIFFER")
    assert same, (found[:3], tags[tag][:3])

accumulator = EventAccumulator("runs/tiny", size_guidance={"scalars": 0})
accumulator.Reload()
for tag in tags:
    compare("python", tag, [(s.step, s.value) for s in accumulator.Scalars(tag)])
base = "http://127.0.0.1:16006/data/plugin/scalars/"
for _ in range(100):
    try:
        runs = json.load(urllib.request.urlopen(base + "tags"))
        if all(tag in runs.get("tiny", {}) for tag in tags):
            break
    except OSError:
        pass
    time.sleep(0.3)
for tag in tags:
    query = urllib.parse.urlencode({"run": "tiny", "tag": tag, "format": "json"})
    compare("server", tag, [(p[1], p[2]) for p in json.load(urllib.request.urlopen(base + "scalars?" + query))])
PYTHON
venv/bin/python check.py
grep -i "data server\|fast" server.log || true
