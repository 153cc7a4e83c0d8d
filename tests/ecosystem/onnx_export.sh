#!/usr/bin/env bash
# `rhn export --to onnx` against onnx.checker and onnxruntime: logits of the step, of the sequence and of the reference
# model, the state from call to call, every kind of core.
#
# tests/ecosystem/onnx_export.sh PATH/TO/rhn
set -euo pipefail
. "$(dirname "$0")/common.sh"
models
cores
python=$(environment onnx onnx==1.23.2 onnxruntime==1.32.0 tokenizers==0.23.3 safetensors==0.8.0 torch==2.15.0)
"$python" "$here/onnx_export.py" "$rhn" "$place" shakespeare:romeo.txt word:unseen.txt chars-to-words:unseen.txt \
  $(for name in $all_cores; do echo "$name:unseen.txt"; done)
