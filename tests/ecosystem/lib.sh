# What the scripts share: the environment, the server, and its end. To be sourced.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
RHN=${RHN:-$root/target/release/rhn}
CHECKPOINT=${CHECKPOINT:-$root/checkpoints/shakespeare}
work=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

# venv PACKAGE==VERSION...: python with these packages.
venv() {
    folder=${VENV:-$work/venv}
    [ -x "$folder/bin/python" ] || python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
    python=$folder/bin/python
}

# serve ARGS...: starts the server; its address is in $url, its process in $server.
serve() {
    "$RHN" serve "$@" --port 0 2>"$work/server.log" &
    server=$!
    for _ in $(seq 300); do
        url=$(sed -n 's/.*\(http:\/\/[^ ]*\).*/\1/p' "$work/server.log" | head -n 1)
        [ -z "$url" ] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/server.log" >&2
    exit 1
}

# stop: ends the server by SIGTERM, which must give 0.
stop() {
    kill -TERM "$server"
    wait "$server" || { echo "the server ended with $?" >&2; cat "$work/server.log" >&2; exit 1; }
    server=
}
