#!/usr/bin/env bash
# One would expect that the offsets of a token cover all the text that became it, so that what no offset covers was left
# out. In tokenizers 0.23.3 a combining mark that NFC or NFKC joins to the last letter of a token is covered by no
# offset, although the token is the composed word; within a token the same mark is covered, and with NFD it always is.
# Who puts surprisals back onto a text by offsets, or counts what a vocabulary lacks by the gaps between them, finds a
# symbol that was "left out" and a word that is cut short, but only where the letter happens to be the last one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
"$folder/venv/bin/python" - << 'PYTHON'
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers


def offsets(normalizer, text):
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "Café": 1, "naïve": 2}, unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoding = tokenizer.encode(text)
    return encoding.tokens, encoding.offsets


last, within = "Cafe\u0301", "nai\u0308ve"  # 5 and 6 characters
for name, normalizer in [("NFC", normalizers.NFC()), ("NFKC", normalizers.NFKC())]:
    found = offsets(normalizer, last)
    print(name, ascii(last), found)
    assert found == (["Café"], [(0, 4)]), "the mark is covered now"
    found = offsets(normalizer, within)
    print(name, ascii(within), found)
    assert found == (["naïve"], [(0, 6)])
found = offsets(normalizers.NFD(), last)
print("NFD", ascii(last), found)
assert found[1] == [(0, 5)]
print("as described")
PYTHON
