#!/usr/bin/env bash
# The harness lm_eval with an exported model (`--model hf`) and a task of its own files: nats of whole documents, and of
# continuations, against `rhn score`.
#
# tests/ecosystem/lm_eval_export.sh PATH/TO/rhn
set -euo pipefail
. "$(dirname "$0")/common.sh"
models
python=$(environment lm_eval "lm_eval[hf]==0.4.13" transformers==5.24.0 torch==2.15.0)
"$python" "$here/lm_eval_export.py" "$rhn" "$place" shakespeare:romeo.txt word:unseen.txt chars-to-words:unseen.txt
