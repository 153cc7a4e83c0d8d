# What the scripts here share: environments with pinned packages, and small models to export. Not to be run by itself.
#
# RHN_DATA           where ptb/ptb.train.txt is
# RHN_VENVS          keep environments here and use them again           [a new folder, removed at the end]
# RHN_SITE_PACKAGES  packages that need not be installed again, say those of an environment with torch

rhn=$(realpath "${1:?the program rhn}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
ptb=${RHN_DATA:?wanted: a folder with ptb/ptb.train.txt}/ptb/ptb.train.txt
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
venvs=${RHN_VENVS:-$place/venvs}
export HF_HUB_OFFLINE=1 HF_HOME=$place/hub HF_HUB_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=false

# environment NAME PACKAGE…: prints the Python of an environment with these packages.
environment() {
  local name=$1 python=$venvs/$1/bin/python
  shift
  if [ ! -x "$python" ]; then
    python3 -m venv "$venvs/$name" >&2
    if [ -n "${RHN_SITE_PACKAGES:-}" ]; then
      echo "$RHN_SITE_PACKAGES" > "$("$python" -c 'import site; print(site.getsitepackages()[0])')/zz_shared.pth"
    fi
    "$python" -m pip install --quiet --disable-pip-version-check "$@" >&2
  fi
  echo "$python"
}

# model NAME UNIT SETTING…: trains a small model for a few steps into $place/NAME.
model() {
  local name=$1 unit=$2 settings=()
  shift 2
  for setting in "$@"; do settings+=(--set "$setting"); done
  cat > "$place/$name.toml" <<TOML
[corpus]
name = "$place/text.txt"
unit = "$unit"
[model.embedding]
kind = "word"
[model.core]
kind = "rhn"
hidden_size = 24
recurrence_depth = 2
[train]
epochs = 1
batch_size = 4
bptt_steps = 20
optimizer = "adam"
learning_rate = 0.01
init_scale = 0.1
TOML
  "$rhn" train "$place/$name.toml" --out "$place/$name" --max-steps "${steps:-40}" --device cpu "${settings[@]}" \
    > "$place/$name.log" 2>&1 || { cat "$place/$name.log" >&2; exit 1; }
}

head -n 400 "$ptb" > "$place/text.txt"
sed -n 401,420p "$ptb" > "$place/unseen.txt"
cp -r "$root/checkpoints/shakespeare" "$place/shakespeare"
printf 'ROMEO:\nWhat light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n' > "$place/romeo.txt"

# models: the embeddings and units that every client sees.
models() {
  model word word model.output.tied=true
  model chars-to-words word 'model.embedding={kind="char-cnn",char_size=6,filter_widths=[1,2,3],filter_counts=[5,6,7],highway_layers=2}' \
    'model.core={kind="lstm",layers=2,hidden_size=20}'
}

# cores: one of each kind of core and unit.
cores() {
  local steps=10
  model untied-rhn char model.core.layers=2 corpus.unknown=true
  model rhn-transform byte 'model.core.shared_gates="transform"' model.core.recurrence_depth=3 corpus.unknown=true
  model rhn-both bpe 'model.core.shared_gates="both"' model.core.layers=2 corpus.vocab_size=300
  model gru byte 'model.core={kind="gru",layers=2,hidden_size=18}'
  model lstm char 'model.core={kind="lstm",hidden_size=18}' model.output.tied=true
  model zhang word 'model.core={kind="hlstm",layers=3,hidden_size=18}'
  model projected char 'model.core={kind="hlstm",layers=2,hidden_size=18,projection=10}'
  model coupled char 'model.core={kind="hlstm",layers=2,hidden_size=18,coupled=true,peephole="none"}'
  model depth-gated char 'model.core={kind="hlstm",variant="depth-gated",layers=2,hidden_size=18}'
  model kurata word 'model.core={kind="hlstm",variant="kurata",layers=2,hidden_size=18}' model.output.tied=true
  # One round gates the input alone: an RHN's state, gated too, can grow without bound while a text is read.
  model mogrifier char model.core.layers=2 'model.core.mogrifier={rounds=1}'
  model mogrifier-lstm word 'model.core={kind="lstm",layers=2,hidden_size=18,mogrifier={rounds=5,rank=6}}'
  model mixture word 'model.output={kind="mixture",components=3,tied=true}' model.embedding.size=14
  model mixture-untied char 'model.output={kind="mixture",components=2}' 'model.core.mogrifier={rounds=1}'
  model highway word 'model.embedding={kind="char-cnn",char_size=6,filter_widths=[1,2],filter_counts=[5,6],highway_layers=2,highway="residual-linear",word_size=14}'
}
all_cores="untied-rhn rhn-transform rhn-both gru lstm zhang projected coupled depth-gated kurata mogrifier mogrifier-lstm mixture mixture-untied highway"
