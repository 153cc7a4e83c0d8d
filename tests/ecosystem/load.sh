#!/bin/sh
# Speed and steadiness: 64 clients that stream against one; then 200 clients, a tenth of them slow, broken or hostile.
. "$(dirname "$0")/lib.sh"
serve "$CHECKPOINT" --connections 1024 --queue 1024 --read-timeout 5 --write-timeout 5
python3 "$here/load.py" "$url" "$server" "${SECONDS_OF_LOAD:-60}"
stop
echo "load: no answer was lost"
