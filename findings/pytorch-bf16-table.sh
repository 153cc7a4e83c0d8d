#!/usr/bin/env bash
# One would expect the gradient of an embedding's row to be a sum over the places where its word stands, made in single
# precision and rounded once if the table is of bfloat16, as products and sums of bfloat16 are.
# With PyTorch 2.15.0 on a CPU the row itself is added to, place by place, in bfloat16: of a word that stands 300 or 1,000 times in
# a batch with a gradient of 1 each, the row's gradient is 256, where adding 1 changes nothing any more. So it is for
# nn.Embedding, for sparse gradients once they are coalesced, for nn.EmbeddingBag and for weight[ids]; index_select of the
# same rows gives 300 and 1,000, and a table of float32 does everywhere.
# It matters here because tables of two bytes a number (train.tables) hold frequent words: their gradients are made in f32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat > check.py <<'PYTHON'
import torch

def gradient(look_up, count, dtype):
    """That of one number of row 0, which stands `count` times in the batch and has a gradient of 1 in each place."""
    table = torch.ones(4, 8, dtype=dtype, requires_grad=True)
    look_up(table, torch.zeros(count, dtype=torch.long)).float().sum().backward()
    dense = table.grad.coalesce().to_dense() if table.grad.is_sparse else table.grad
    return dense[0, 0].item()

functional = torch.nn.functional
ways = {
    "embedding": lambda table, ids: functional.embedding(ids, table),
    "embedding, sparse": lambda table, ids: functional.embedding(ids, table, sparse=True),
    "embedding_bag": lambda table, ids: functional.embedding_bag(ids.view(1, -1), table, mode="sum"),
    "table[ids]": lambda table, ids: table[ids],
    "index_select": lambda table, ids: table.index_select(0, ids),
}
torch.set_num_threads(1)
print(torch.__version__)
found = {}
for name, look_up in ways.items():
    found[name] = [gradient(look_up, count, dtype) for dtype in (torch.bfloat16, torch.float32) for count in (200, 300, 1000)]
    print(f"{name:18} bfloat16 {found[name][:3]}, float32 {found[name][3:]}")
exact = [200.0, 300.0, 1000.0]
stuck = [200.0, 256.0, 256.0]
wanted = {name: (exact if name == "index_select" else stuck) + exact for name in ways}
raise SystemExit(0 if found == wanted else "this has changed")
PYTHON
venv/bin/python check.py
