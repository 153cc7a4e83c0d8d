"""Does the Python `tokenizers` library (0.23.3) give the ids that rhn gives? Run by hand:

    pip install tokenizers==0.23.3
    RHN_SAMPLES=/tmp/samples cargo test --test it writes_samples -- --ignored
    python3 tests/reference/tokenizers_check.py /tmp/samples

One exception is known and allowed: a vocabulary of words without <unk>, for which the library refuses unseen
words where rhn leaves them out.
"""

import json
import pathlib
import sys

from tokenizers import Tokenizer

wrong = texts = ids = refused = 0
for case in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    file = case / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    if json.loads(tokenizer.to_str()) != json.loads(file.read_text()):
        print(f"{case.name}: the library writes this file differently")
        wrong += 1
    for path in sorted(case.glob("*.txt")):
        text = path.read_bytes().decode()  # read_text would translate line ends
        wanted = json.loads(path.with_suffix(".json").read_text())
        try:
            found = tokenizer.encode(text).ids
        except Exception as error:
            if "-Word-" in case.name and "UNK" in str(error) and tokenizer.token_to_id("<unk>") is None:
                refused += 1
                continue
            raise
        texts, ids = texts + 1, ids + len(found)
        if found != wanted:
            wrong += 1
            at = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
            print(f"{case.name} {path.name}: {len(found)} ids, wanted {len(wanted)}; first difference at {at}")
            print("   found ", [tokenizer.id_to_token(i) for i in found[max(at - 3, 0) : at + 5]])
            print("   wanted", [tokenizer.id_to_token(i) for i in wanted[max(at - 3, 0) : at + 5]])
print(f"{texts} texts, {ids} ids; {refused} with unseen words refused as known; {wrong} differences")
sys.exit(wrong > 0)
