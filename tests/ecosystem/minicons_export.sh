#!/usr/bin/env bash
# Scores by minicons of an exported model, against `rhn score`.
#
# tests/ecosystem/minicons_export.sh PATH/TO/rhn
set -euo pipefail
. "$(dirname "$0")/common.sh"
models
python=$(environment minicons minicons==0.3.39 transformers==5.24.0 torch==2.15.0)
"$python" "$here/minicons_export.py" "$rhn" "$place" shakespeare word chars-to-words
