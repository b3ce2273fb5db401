"""Kills trainings at random instants and at every named point, and compares how they end: ``make kill-storm N=200``.

Half of the kills hit runs in a folder, half runs in an emulated bucket; each attempt has another number of workers.
"""

import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from job import checkpoint
from job.run import Run
from job.store import open_store
from tests.support.bucket import make_bucket
from tests.support.command import job, kill, start_job
from tests.support.emulator import running_emulator
from tests.support.job_at import POINTS
from tests.support.tiny_dataset import make_tiny_dataset

ORDER = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "3", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "16", "--warmup-epochs", "0", "--close-mosaic", "1", "--plots", "false", "--checkpoint-every", "0.3"),
)
"""Three epochs of six batches; four batches make an optimizer step, so gradients wait at most checkpoints."""

KILLS_PER_RUN = 8

CALLS = {"step": 14, "write": 6, "manifest": 6, "retention": 5, "mirror": 12, "validation": 3}
"""How late a point may strike, where it is passed more than once."""

LONGEST_S = 9.0
"""Random instants are drawn up to here, in seconds after the start of a process."""


@dataclass
class Storm:
    """What was done and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    num_runs: int = 0
    num_resumed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        """How many processes were killed."""
        return sum(self.kills.values())

    def table(self) -> str:
        """Return the kills by where they struck."""
        rows = [f"{place:20} {number:4}" for place, number in sorted(self.kills.items())]
        return "\n".join([*rows, f"{'all':20} {self.num_kills:4}   in {self.num_runs} runs"])


def make_tiny_bucket(location: str) -> str:
    """Push the tiny dataset into a bucket."""
    with tempfile.TemporaryDirectory() as folder:
        return make_bucket(make_tiny_dataset(Path(folder), num_train=22, num_val=4), location)


def ends_of(location: str, name: str) -> dict[str, str]:
    """Return the digests of a finished run's weights, and of its last state."""
    run = Run(open_store(location), name)
    final = run.final()
    assert final is not None, f"run {name} is not finished"
    newest = checkpoint.read_manifest(run, checkpoint.committed(run)[-1])
    return {file: entry["tensors"] for file, entry in final["weights"].items()} | newest.about["digests"]


def storm(storm: Storm, location: str, num_kills: int, seed: int, say=print) -> None:
    """Kill runs in a bucket so many times, and compare each with one that nobody killed."""
    chance = random.Random(seed)  # noqa: S311  # not for secrets
    workdir = tempfile.mkdtemp()
    words = ("--bucket", location, "--workdir", workdir)
    straight = job(*ORDER, *words, "--run", "straight", "--workers", "0")
    assert straight.returncode == 0, straight.stderr
    expected = ends_of(location, "straight")
    places = [*POINTS, *["any instant"] * len(POINTS)]
    chance.shuffle(places)
    until = storm.num_kills + num_kills
    while storm.num_kills < until:
        storm.num_runs += 1
        name = f"killed{storm.num_runs}"
        for _ in range(min(KILLS_PER_RUN, until - storm.num_kills)):
            places.append(place := places.pop(0))
            if not strike(place, (*ORDER, *words, "--run", name), chance):
                break
            storm.kills[place] += 1
        workers = str(chance.choice([0, 1, 2]))
        ended = job(*ORDER, *words, "--run", name, "--workers", workers)
        if ended.returncode != 0:
            storm.failures.append(f"{name}: exit {ended.returncode}, {ended.stderr[-500:]}")
        elif (found := ends_of(location, name)) != expected:
            storm.failures.append(f"{name}: {found} instead of {expected}")
        run = Run(open_store(location), name)
        starts = [run.attempt(number)["start"] for number in run.attempts()]
        storm.num_resumed += sum(1 for start in starts if start and start["receipt"])
        say(f"{name}: {'differs' if storm.failures else 'equal'}, {storm.num_kills} kills so far", flush=True)


def strike(place: str, words: tuple[str, ...], chance: random.Random) -> bool:
    """Start a process and kill it at a place; false if it ended before it got there."""
    words = (*words, "--workers", str(chance.choice([0, 1, 2])))
    if place == "any instant":
        process = start_job(*words)
        time.sleep(chance.uniform(0, LONGEST_S))
        if process.poll() is not None:
            process.communicate()
            return False
        kill(process)
        return True
    process = start_job(*words, at=f"{place}:{chance.randint(1, CALLS.get(place, 1))}:kill")
    process.communicate()
    assert process.returncode in {0, -9}, f"{place}: exit {process.returncode}"
    return process.returncode == -9


def run_storm(num_kills: int, seed: int) -> Storm:
    """Storm a folder and an emulated bucket, half of the kills each."""
    found = Storm()
    with tempfile.TemporaryDirectory() as folder:
        storm(found, make_tiny_bucket(f"{folder}/bucket"), num_kills // 2, seed)
    with running_emulator() as emulator:
        os.environ |= emulator.env
        storm(found, make_tiny_bucket(emulator.make_bucket()), num_kills - num_kills // 2, seed + 1)
    return found


if __name__ == "__main__":
    result = run_storm(int(sys.argv[1]), seed=int(time.time()))
    print(result.table())
    print(f"{result.num_resumed} resumptions from a checkpoint")
    print("\n".join(result.failures) or "PASS: every run ended with the tensors of the run that nobody killed")
    sys.exit(bool(result.failures))
