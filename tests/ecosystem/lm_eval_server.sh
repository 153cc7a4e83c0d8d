#!/bin/sh
# lm_eval's `local-completions` against `rhn serve`: its nats are those of `rhn score`, one request at a time and four.
. "$(dirname "$0")/lib.sh"
venv lm_eval==0.4.13 transformers==5.24.0 tokenizers==0.23.3 tenacity aiohttp requests tqdm
serve "$CHECKPOINT"
"$python" "$here/lm_eval_server.py" "$url" "$RHN" "$CHECKPOINT" "$work"
stop
echo "lm_eval: all as wanted"
