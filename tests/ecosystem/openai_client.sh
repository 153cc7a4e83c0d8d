#!/bin/sh
# The official client of OpenAI against `rhn serve`: completions, lists of prompts, streams, errors, seeds, a token.
. "$(dirname "$0")/lib.sh"
venv openai==3.57.0
printf 'secret-of-this-test\n' >"$work/token"
serve "$CHECKPOINT" --token-file "$work/token"
"$python" "$here/openai_client.py" "$url" secret-of-this-test "$RHN" "$CHECKPOINT"
stop
echo "openai client: all as wanted"
