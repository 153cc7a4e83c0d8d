#!/bin/sh
# lm_eval's `local-completions` against `rhn serve`: its nats are those of `rhn score`, one request at a time and four;
# for characters, and for words, of a model that is trained here for seconds.
. "$(dirname "$0")/lib.sh"
venv lm_eval==0.4.13 transformers==5.24.0 tokenizers==0.23.3 tenacity aiohttp requests tqdm
serve "$CHECKPOINT"
"$python" "$here/lm_eval_server.py" "$url" "$RHN" "$CHECKPOINT" "$work"
stop
"$RHN" train text --corpus "$root/LICENSE-APACHE" --out "$work/words" --set corpus.unit=word --set corpus.unknown=true \
    --set model.core.hidden_size=32 --max-steps 100 --device cpu 2>"$work/train.log" || { cat "$work/train.log"; exit 1; }
mkdir "$work/of-words"
serve "$work/words"
"$python" "$here/lm_eval_server.py" "$url" "$RHN" "$work/words" "$work/of-words" --words
stop
echo "lm_eval: all as wanted"
