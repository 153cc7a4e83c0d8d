#!/usr/bin/env bash
# One would expect a trainer without a seed to give one tokenizer for one text and one set of options, in each process.
# With tokenizers 0.23.3 that holds of byte pairs and of whole words. WordPieceTrainer numbers the "##" letters in another order
# in every process, and so can come to other pieces; UnigramTrainer changes the order of its pieces; BpeTrainer with
# limit_alphabet keeps other letters of those that are equally rare.
# It matters here because weights belong to the numbers of a vocabulary, and a training that is repeated has to be the same
# to the bit: own vocabularies are of byte pairs without limit_alphabet, all others are read from a file that somebody keeps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tokenizers==0.23.3
cat > train.py <<'PY'
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

# Words of two and three syllables, the first ones the most frequent, and at the end 24 letters that occur once.
syllables = [first + vowel for first in "bdfgklmnprst" for vowel in "aeiou"]
words = [syllables[a] + syllables[(7 * a + b) % 60] + (syllables[b] if b % 3 == 0 else "") for b in range(20) for a in range(60)]
lines = [" ".join(words[: 1 + len(words) // (line + 1)]) for line in range(400)] + ["αβγδεζηθικλμνξοπρστυφχψω"]
kinds = {
    "byte pairs": (models.BPE(), trainers.BpeTrainer(vocab_size=300, show_progress=False)),
    "byte pairs, limit_alphabet": (models.BPE(), trainers.BpeTrainer(vocab_size=300, limit_alphabet=30, show_progress=False)),
    "whole words": (models.WordLevel(), trainers.WordLevelTrainer(vocab_size=300, show_progress=False)),
    "word pieces": (models.WordPiece(), trainers.WordPieceTrainer(vocab_size=300, show_progress=False)),
    "unigram": (models.Unigram(), trainers.UnigramTrainer(vocab_size=200, show_progress=False)),
}
model, trainer = kinds[sys.argv[1]]
tokenizer = Tokenizer(model)
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.train_from_iterator(lines, trainer)
numbers = tokenizer.get_vocab()
print(*(numbers[piece] for piece in sorted(numbers)), *sorted(numbers))
PY
found=$(for kind in "byte pairs" "byte pairs, limit_alphabet" "whole words" "word pieces" "unigram"; do
    for run in 1 2 3 4 5 6; do
        venv/bin/python train.py "$kind" > "$run.txt"
    done
    different=$(sha256sum ?.txt | cut -d ' ' -f 1 | sort -u | wc -l)
    echo "$kind: $([ "$different" = 1 ] && echo one vocabulary || echo different vocabularies)"
done)
echo "$found"
wanted='byte pairs: one vocabulary
byte pairs, limit_alphabet: different vocabularies
whole words: one vocabulary
word pieces: different vocabularies
unigram: different vocabularies'
[ "$found" = "$wanted" ] || { echo "this has changed" >&2; exit 1; }
