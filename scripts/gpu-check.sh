#!/usr/bin/env bash
# Everything that a GPU has to show, in one go: builds with CUDA, holds the GPU to the CPU, measures rhn beside PyTorch,
# trains for a while, and prints a table.
#
#   scripts/gpu-check.sh [--dry-run] [--quick] [--out DIR] [--python PYTHON] [--epochs N]
#
#   --dry-run    print the commands; run none
#   --quick      two repeats of each measurement, PyTorch in two modes, one epoch
#   --out DIR    where outputs and the table go                          [gpu-check]
#   --python     one that has PyTorch with CUDA; without it, no peers     [python3]
#   --epochs     of the short training                                   [5]
#
# Needs Rust, the CUDA toolkit (nvcc; or scripts/setup-cuda.sh and `. .cuda/env.sh`) and a GPU of compute capability 8.0
# or later. Exit code 0 if every step went well; the table is printed in any case.
set -uo pipefail
cd "$(dirname "$0")/.."

dry=0 quick=0 out=gpu-check python=python3 epochs=5
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1 ;;
    --quick) quick=1 epochs=1 ;;
    --out) out=${2:?a directory}; shift ;;
    --python) python=${2:?a program}; shift ;;
    --epochs) epochs=${2:?a number}; shift ;;
    -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    *) echo "gpu-check: $1? see --help" >&2; exit 2 ;;
  esac
  shift
done

repeats=5
modes="eager tf32 compile compile-reduce-overhead compile-max-autotune bf16 compile-bf16 compile-reduce-overhead-bf16
  compile-max-autotune-bf16"
[ $quick = 1 ] && repeats=2 modes="eager compile-bf16"
rhn=target/release/rhn
failed=0

# say NAME COMMAND…: runs it, with its output in $out/NAME.log; or, in a dry run, prints it.
say() {
  local name=$1; shift
  if [ $dry = 1 ]; then printf '%s > %s\n' "$*" "$out/$name.log"; return 0; fi
  printf '%-44s' "$name" >&2
  local begun=$SECONDS
  if "$@" > "$out/$name.log" 2>&1; then
    printf 'ok      %ss\n' $((SECONDS - begun)) >&2
  else
    printf 'FAILED  see %s\n' "$out/$name.log" >&2; failed=1; echo "$name" >> "$out/failed"; return 1
  fi
}

# json NAME COMMAND…: as say, the standard output alone in $out/NAME.json.
json() {
  local name=$1; shift
  if [ $dry = 1 ]; then printf '%s > %s\n' "$*" "$out/$name.json"; return 0; fi
  say "$name" bash -c '"${@:2}" > "$1"' _ "$out/$name.json" "$@" || { rm -f "$out/$name.json"; return 1; }
}

[ $dry = 1 ] || { mkdir -p "$out" && rm -f "$out"/*.json "$out"/*.log "$out/failed"; }
say gpu nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
say build cargo build --release --features cuda || exit 1
say parity cargo test --release --features cuda --test gpu -- --test-threads=1 --nocapture
say recurrence cargo test --release -p rhn-kernels --features cuda --test gpu -- --test-threads=1 --nocapture
if [ $dry = 0 ] && grep -q 'skipped: ' "$out/parity.log"; then
  echo "gpu-check: no GPU was found; the rest would measure nothing" >&2; cat "$out/parity.log" >&2; exit 1
fi
# Sums between GPUs, of one rank, where MPI and NCCL are installed to build with.
if [ $dry = 1 ] || { command -v mpicc && ldconfig -p | grep -q libnccl.so; } > /dev/null; then
  say nccl cargo test --release --features nccl --test gpu by_nccl -- --nocapture
fi

for recipe in ptb-rhn enwik8-rhn; do
  for precision in f32 tf32 bf16; do
    json "rhn-$recipe-$precision" $rhn bench $recipe --device cuda --precision $precision --repeats $repeats --json
  done
  json "rhn-$recipe-bf16-steps" env RHN_CUDA_RECURRENCE=steps \
    $rhn bench $recipe --device cuda --precision bf16 --repeats $repeats --json
done
if [ $dry = 1 ] || "$python" -c 'import torch; assert torch.cuda.is_available()' 2> "$out/peers.log"; then
  for shape in ptb enwik8; do
    for mode in $modes; do
      json "peer-$shape-$mode" "$python" -B benches/peers/pytorch_rhn.py train --device cuda --shape $shape \
        --mode $mode --repeats $repeats --json
    done
  done
  for what in stream sample; do
    json "peer-ptb-$what" "$python" -B benches/peers/pytorch_rhn.py $what --device cuda --repeats $repeats --json
  done
else
  echo "gpu-check: $python has no PyTorch with CUDA (see $out/peers.log): no peers" >&2
fi

# A short training: Penn Treebank if it is on this machine, else Shakespeare, which is built in.
recipe=ptb-rhn
[ $dry = 1 ] || $rhn data inspect ptb > /dev/null 2>&1 || recipe=shakespeare
[ $dry = 1 ] || rm -rf "$out/run"
say train $rhn train $recipe --device cuda --precision bf16 --set train.epochs=$epochs --out "$out/run"

[ $dry = 1 ] && { echo "python3 scripts/gpu_table.py $out"; exit 0; }
python3 scripts/gpu_table.py "$out" | tee "$out/table.md"
exit $failed
