#!/usr/bin/env python3
"""Runs of several processes, by Open MPI: the same model as one process trains, and nothing lost when a rank is killed.

    cargo build --release --features mpi
    python3 scripts/ranks.py target/release/rhn [KILLS]

It trains a small model on the text that comes with the program, in a temporary folder: on 1, 2 and 4 ranks in single and
double precision, twice on 2; then again on 2 ranks while a rank is killed at a random time KILLS times (50), and goes on
each time. Prints what it found; fails if a number is further off than it may be.
"""

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

STEPS = 50
MPIRUN = ["mpirun", "--oversubscribe"] + (["--allow-run-as-root"] if os.geteuid() == 0 else [])
SMALL = ["--set", "train.epochs=1", "--set", "model.core.hidden_size=48", "--set", "train.batch_size=8",
         "--set", "train.bptt_steps=32", "--device", "cpu"]


def command(rhn, ranks, out, steps, *more):
    own = [rhn, "train", "shakespeare", *SMALL, "--max-steps", str(steps), "--out", str(out), *more]
    return own if ranks == 1 else MPIRUN + ["-n", str(ranks)] + own


def train(rhn, ranks, out, steps, *more):
    done = subprocess.run(command(rhn, ranks, out, steps, *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def newest(out):
    states = sorted((path for path in (out / "state").iterdir() if (path / "state.json").is_file()),
                    key=lambda path: json.loads((path / "state.json").read_text())["step"])
    return states[-1]


def nats(out):
    position = json.loads((newest(out) / "state.json").read_text())
    return position["epoch_sums"]["nats"] / position["epoch_sums"]["tokens"]


def digests(out):
    return [hashlib.sha256((newest(out) / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "optimizer.safetensors")]


def same_model(rhn, folder):
    for precision, most in (("f32", 1e-5), ("f64", 1e-10)):
        more = ["--precision", precision]
        for ranks in (1, 2, 4):
            train(rhn, ranks, folder / f"{precision}-{ranks}", STEPS, *more)
        train(rhn, 2, folder / f"{precision}-again", STEPS, *more)
        alone = nats(folder / f"{precision}-1")
        for ranks in (2, 4):
            distance = abs(nats(folder / f"{precision}-{ranks}") - alone)
            print(f"{precision}, {ranks} ranks, mean nats of {STEPS} steps: {distance:.1e} from one process")
            assert distance < most, (precision, ranks, distance)
        assert digests(folder / f"{precision}-2") == digests(folder / f"{precision}-again")
    print("2 ranks twice: the same bits")
    # With another number of ranks it goes on.
    train(rhn, 4, folder / "f32-2", STEPS + 5, "--resume")
    train(rhn, 1, folder / "f32-2", STEPS + 10, "--resume")


def refused(rhn, folder):
    """Rank 0 alone says what it refuses, its exit code is that of mpirun, no rank waits for another, and nothing is left."""
    for more, code, part in ((["--corpus", "nofile.txt"], 3, "nofile.txt"),
                             (["--set", "train.batch_size=1"], 2, "batch_size")) * 5:
        done = subprocess.run(command(rhn, 2, folder / "refused", STEPS, *more), capture_output=True, text=True,
                              timeout=60)
        said = done.stdout + done.stderr
        assert done.returncode == code and part in said and "MPI_ERR" not in said, (done.returncode, said)
        assert said.count("error:") == 1 and not (folder / "refused").exists(), said
    print("2 ranks: what cannot be trained is refused as of one process")


def ranks_of(parent):
    listed = subprocess.run(["pgrep", "-P", str(parent), "rhn"], capture_output=True, text=True).stdout
    return [int(pid) for pid in listed.split()]


def killed(rhn, folder, kills):
    steps = 40 * kills
    often = ["--set", "train.save_minutes=0.002", "--set", "model.core.hidden_size=192", "--set", "train.batch_size=16"]
    train(rhn, 2, folder / "whole", steps, *often)
    out = folder / "killed"
    slowest = 0.0
    done = 0
    for number in range(kills):
        more = often + (["--resume"] if out.exists() else [])
        process = subprocess.Popen(command(rhn, 2, out, steps, *more), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while not ranks_of(process.pid) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.uniform(0.3, 1.6))
        victims = ranks_of(process.pid)
        if not victims:
            continue
        os.kill(random.choice(victims), signal.SIGKILL)
        done += 1
        begun = time.time()
        process.wait(timeout=60)
        while any(pathlib.Path(f"/proc/{pid}").exists() for pid in victims):
            time.sleep(0.01)
            assert time.time() - begun < 60, "a rank is still there"
        slowest = max(slowest, time.time() - begun)
    train(rhn, 2, out, steps, *often, *(["--resume"] if out.exists() else []))
    print(f"{done} ranks killed; all gone after at most {slowest:.1f} s")
    assert slowest < 10
    assert digests(out) == digests(folder / "whole"), "the run that was killed ends with other bits"
    print("the run ends with the same bits as one that was never killed")


def main():
    rhn = str(pathlib.Path(sys.argv[1]).resolve())
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    random.seed(1)
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        os.chdir(pathlib.Path(__file__).resolve().parent.parent)
        same_model(rhn, folder)
        refused(rhn, folder)
        killed(rhn, folder, kills)
    finally:
        shutil.rmtree(folder)


main()
