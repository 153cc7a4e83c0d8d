#!/usr/bin/env bash
# `rhn export --to transformers` against the library itself, three versions of it: ids, logits, losses, generation with and
# without the state, batches with padding, beam search, what is saved and loaded again.
#
# tests/ecosystem/transformers_export.sh PATH/TO/rhn [VERSION…]
set -euo pipefail
. "$(dirname "$0")/common.sh"
shift
versions=${*:-5.24.0 5.0.0 4.57.6}
models
cores
for version in $versions; do
  python=$(environment "transformers-$version" "transformers==$version" torch==2.15.0)
  "$python" "$here/transformers_export.py" "$rhn" "$place" shakespeare:romeo.txt word:unseen.txt chars-to-words:unseen.txt \
    $(for name in $all_cores; do echo "$name:unseen.txt"; done)
done
