#!/usr/bin/env bash
# Faults from outside, by hand and as root: EIO, ENOSPC and SIGKILL at every write, sync, rename and removal of a run
# (strace), full file systems, limits on the size of files, a read-only directory. After each: what is published is
# readable, the message names a file of the run, and the resumed run ends with the bytes of one left alone.
#
# tests/faults.sh PATH/TO/rhn [STRIDE]      STRIDE 5: only every fifth place
set -euo pipefail

rhn=$(realpath "$1")
stride=${2:-1}
place=$(mktemp -d)
trap 'umount "$place/small" 2>/dev/null || true; rm -rf "$place"' EXIT
cd "$place"
exec 2> shell.log # the shell's own word on every process that was killed

for _ in $(seq 12); do printf 'To be , or not to be :\nthat is the question\n'; done > corpus.txt
cat > tiny.toml <<'TOML'
[corpus]
name = "corpus.txt"
unit = "char"
split = [80, 10, 10]
[model.embedding]
kind = "word"
[model.core]
kind = "rhn"
hidden_size = 8
recurrence_depth = 2
[train]
epochs = 2
batch_size = 2
bptt_steps = 30
optimizer = "adam"
learning_rate = 0.01
init_scale = 0.1
save_minutes = 0.0
dropout = { input = 0.1, hidden = 0.1, output = 0.1 }
TOML
train=("$rhn" train tiny.toml --threads 1 --resume --out)

# The bytes that must not differ: the best weights, and the last state's weights, moments and lanes.
fingerprint() {
  local state
  state=$(ls -d "$1"/state/step-* | sort | tail -1)
  cat "$1/model.safetensors" "$state/model.safetensors" "$state/optimizer.safetensors" | sha256sum
}

tried=0 failed=0
fail() { failed=$((failed + 1)); echo "FAILED: $*"; }

# What was left is readable, and goes on to the same end.
goes_on() { # CASE OUT
  if [ -e "$2/manifest.json" ] || [ -e "$2/.pending" ]; then
    "$rhn" eval "$2" --json > /dev/null 2> eval.log || fail "$1: not readable: $(tail -1 eval.log)"
  fi
  "${train[@]}" "$2" > /dev/null 2> resume.log || fail "$1: does not go on: $(tail -1 resume.log)"
  [ "$(fingerprint "$2")" = "$whole" ] || fail "$1: other bytes at the end"
  [ -z "$(find "$2" -name '.*' -o -name '*.tmp' | grep -v "^$2$")" ] || fail "$1: something stays aside"
}

# A failure says so and names a file of the run; a death says nothing; neither may be a panic. Where every write fails
# from some place on, the message has no room either, but half of it would be wrong.
check_message() { # CASE CODE OUT
  if grep -q panicked run.log; then fail "$1: panicked"; fi
  [ "$2" = 1 ] || return 0
  case $1 in write*ENOSPC*) grep -q "error: " run.log || return 0 ;; esac
  grep -q "error: .*$3" run.log || fail "$1: no file named: $(tail -1 run.log)"
}

"${train[@]}" whole > /dev/null 2>&1
whole=$(fingerprint whole)

for call in write fsync rename unlink mkdir rmdir ftruncate; do
  strace -f -e trace=$call -o calls.log "${train[@]}" count > /dev/null 2>&1
  rm -rf count
  places=$(awk '/\(/ { n[$1]++ } END { for (p in n) if (n[p] > most) most = n[p]; print most + 0 }' calls.log)
  for kind in error=EIO:when=% error=ENOSPC:when=%+ signal=SIGKILL:when=%; do
    case $kind$call in *ENOSPC*unlink | *ENOSPC*rmdir | *ENOSPC*rename | *ENOSPC*ftruncate) continue ;; esac
    for n in $(seq 1 "$stride" "$places"); do
      code=0
      strace -f -e trace=$call -e inject=$call:${kind/\%/$n} -o /dev/null "${train[@]}" out > /dev/null 2> run.log || code=$?
      check_message "$call ${kind/\%/$n}" $code out
      goes_on "$call ${kind/\%/$n}" out
      tried=$((tried + 1))
      rm -rf out
    done
  done
  echo "$call: $places places; $tried tried so far, $failed failed"
done

mkdir small
for kilobytes in 4 12 24 40 56 64 72 80 88 96; do
  mount -t tmpfs -o size=${kilobytes}k none small
  code=0
  "${train[@]}" small/out > /dev/null 2> run.log || code=$?
  check_message "a disk of $kilobytes kB" $code small
  mount -o remount,size=10m small
  goes_on "a disk of $kilobytes kB" small/out
  umount small
  tried=$((tried + 1))
done

for bytes in 0 1 30 500 1000 2000 3000 4000 5000 6000; do
  code=0
  said=$(prlimit --fsize=$bytes "${train[@]}" out 2>&1 > /dev/null) || code=$? # not to a file: it has the limit too
  echo "$said" > run.log
  check_message "files of at most $bytes bytes" $code out
  goes_on "files of at most $bytes bytes" out
  tried=$((tried + 1))
  rm -rf out
done

for steps in 0 1 3 6 7 9 12; do
  mount -t tmpfs -o size=10m none small
  "${train[@]}" small/out --max-steps "$steps" > /dev/null 2>&1
  mount -o remount,ro small
  code=0
  "${train[@]}" small/out > /dev/null 2> run.log || code=$?
  [ $code = 1 ] || fail "read-only after $steps steps: exit code $code"
  check_message "read-only after $steps steps" $code small
  mount -o remount,rw small
  goes_on "read-only after $steps steps" small/out
  umount small
  tried=$((tried + 1))
done

echo "$tried tried, $failed failed"
[ $failed = 0 ]
