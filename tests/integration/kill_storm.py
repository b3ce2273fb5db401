"""Disturbs trainings at random instants and at every named point, and compares how they end: ``make kill-storm N=200``.

Half of the disturbances hit runs in a folder, half runs in an emulated bucket; every other run trains and validates on
tiles, and each attempt has another number of workers. No step is trained again whose checkpoint is committed, and
tensors and metrics are in the end those of an undisturbed run.
"""

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from job.runs import checkpoint
from job.runs.listing import RunListing
from job.runs.run import Run
from job.session.callbacks import TRACE
from job.storage.open_store import open_store
from tests.support.attempt_records import final_tensors
from tests.support.bucket import make_bucket
from tests.support.cli_process import ROOT, TIMEOUT_S, start_job, wait_until
from tests.support.clock.sitecustomize import CLOCK
from tests.support.emulator import Emulator, running_emulator
from tests.support.fault_point_cli import HAPPENED, PAUSE_S, POINTS, SECONDS, UNRELIABLE
from tests.support.fault_proxy import Proxy, Sent, running_proxy
from tests.support.learned_weights import learn
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--epochs", "3", "--imgsz", "64", "--batch", "4", "--nbs", "16", "--lr0", "0.0005"),
    *("--optimizer", "AdamW", "--warmup-epochs", "0", "--close-mosaic", "1", "--plots", "false"),
    *("--checkpoint-every", "0.3"),
)
"""Three epochs; four batches make an optimizer step, so gradients wait at most checkpoints."""

RECIPES = {"pictures": ("--recipe", "base"), "tiles": ("--recipe", "T", "--tiles", "40")}
"""Kinds of runs: six batches in an epoch, or about three times as many. A run is named after its kind."""

ENDINGS = {"kill": signal.SIGKILL, "INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}
"""Ends of a process: signals to its whole group, as a machine, a terminal and a scheduler send them."""

TRIALS = ("long pause", "ahead", "back", "faults")
"""Disturbances that a process survives: it is stopped for a while, its clock is set, its bucket is unreliable."""

UNRELIABLE_SHARE = 0.05
"""Of what a process asks of a bucket that fails."""

PAIRS_PER_RUN = 4
"""Attempts of a run that are disturbed by a trial and an ending each."""

CALLS = {"step": 14, "write": 6, "manifest": 6, "retention": 5, "mirror": 12, "validation": 3, "nms": 12}
"""The latest call at which a point acts, where there are several."""

INSTANT = "any instant"

LONGEST_S = 9.0
"""Random instants are drawn up to here, in seconds after the start of a process."""

MOST_FAILURES = 10
"""After these a storm ends: something is wrong everywhere."""

SET_CLOCK = ROOT / "tests" / "support" / "clock"
"""On the path of a process, this lets its clock be set."""


@dataclass
class Storm:
    """Disturbances and failures of a storm."""

    disturbances: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By way and place."""

    num_runs: int = 0
    num_resumed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def num_disturbances(self) -> int:
        """Number of disturbances; two to one process count twice."""
        return sum(self.disturbances.values())

    @property
    def ways(self) -> set[str]:
        """The ways in which processes were disturbed."""
        return {way for way, _ in self.disturbances}

    def table(self) -> str:
        """Return the disturbances by way, and by where they struck."""
        rows = []
        for column in (0, 1):
            counts: Counter[str] = Counter()
            for key, number in self.disturbances.items():
                counts[key[column]] += number
            rows += [f"{name:20} {number:4}" for name, number in sorted(counts.items())] + [""]
        return "\n".join([*rows, f"{'all':20} {self.num_disturbances:4}   in {self.num_runs} runs"])


@dataclass
class Ground:
    """Where a storm rages."""

    bucket: str
    words: tuple[str, ...]
    """The command's, without recipe and name of the run."""

    folder: Path
    """For scratch files."""

    environment: dict[str, str] = field(default_factory=dict)
    """Leads to the bucket."""

    unreliable: dict[str, str] = field(default_factory=lambda: {UNRELIABLE: str(UNRELIABLE_SHARE)})
    """Leads to the bucket by a way on which a share of requests fails."""

    num_faults: Callable[[], int] = lambda: 0
    """How often it did; a folder notes that where other points do."""

    def run(self, name: str) -> Run:
        """Return a run."""
        return Run(open_store(self.bucket), name)


def make_ground(bucket: str, folder: Path, weights: Path, **how: Any) -> Ground:
    """Push the tiny dataset into a bucket; trainings on it begin with weights that find something."""
    data = make_tiny_dataset(folder / "tiny", num_train=22, num_val=6)
    words = (*TRAIN, "--weights", str(weights), "--workdir", str(folder / "work"))
    return Ground(make_bucket(data, bucket), (*words, "--bucket", bucket), folder, **how)


def storm(
    found: Storm,
    ground: Ground,
    num: int,
    seed: int,
    *,
    endings: Iterable[str] = ENDINGS,
    trials: Iterable[str] = TRIALS,
    kinds: Iterable[str] = RECIPES,
) -> None:
    """Disturb runs so many times, and in each way at least once; compare each with an undisturbed one of its kind."""
    chance = random.Random(seed)  # noqa: S311  # not for secrets
    undisturbed = {kind: straight(ground, kind) for kind in kinds}
    deck_of_kinds = Deck(chance, kinds)
    decks = {"ending": Deck(chance, endings), "trial": Deck(chance, trials)}
    anywhere = [*POINTS, *[INSTANT] * len(POINTS)]
    places = {"ending": Deck(chance, anywhere), "trial": Deck(chance, [*anywhere, *["nms"] * (len(POINTS) // 2)])}
    until, ways = found.num_disturbances + num, {*endings, *trials}
    while (found.num_disturbances < until or not ways <= found.ways) and len(found.failures) < MOST_FAILURES:
        found.num_runs += 1
        kind, before = deck_of_kinds.draw(), len(found.failures)
        name, expected = f"{kind}{found.num_runs}", undisturbed[kind]
        for _ in range(max(1, min(PAIRS_PER_RUN, (until - found.num_disturbances + 1) // 2))):
            if ground.run(name).final() is not None:
                break
            drawn = {kind: (deck.draw(), places[kind].draw()) for kind, deck in decks.items()}
            happened = strike(found, ground, name, drawn, chance)
            for kind, (way, _) in drawn.items():
                if way not in happened:
                    decks[kind].put_back(way)
        ended = attend(start(ground, name, workers=chance.choice("012")))
        found.failures += [f"{name}: {problem}" for problem in problems_of(ended, {0}, ground, name)]
        if ended.returncode == 0:
            ends = ends_of(ground.run(name))
            found.failures += [f"{name}: {key} {ends[key]} instead of {expected[key]}" for key in expected
                               if ends[key] != expected[key]]  # fmt: skip
        run = ground.run(name)
        found.num_resumed += sum(attempt.receipt is not None for attempt in RunListing(run).attempts())
        verdict = "equal" if len(found.failures) == before else "\n  ".join(found.failures[before:])
        print(f"{name}: {verdict}, {found.num_disturbances} disturbances so far", flush=True)


def straight(ground: Ground, kind: str) -> dict[str, Any]:
    """Train an undisturbed run of a kind, and return what it came to."""
    name = f"{kind}0"
    ended = attend(start(ground, name, workers="0"))
    assert ended.returncode == 0, ended.said
    ends = ends_of(ground.run(name))
    assert ends["comparison"]["after"]["f1"] > 0, "nothing was learned, so that no metric could differ"
    return ends


class Deck:
    """Draws each of some cards once before any comes again."""

    def __init__(self, chance: random.Random, cards: Iterable[str]) -> None:
        self._chance, self._cards, self._left = chance, list(cards), []

    def draw(self) -> str:
        """Return the next card."""
        if not self._left:
            self._left = self._chance.sample(self._cards, len(self._cards))
        return self._left.pop()

    def put_back(self, card: str) -> None:
        """Let a card come again after those that are left."""
        self._left.insert(0, card)


@dataclass
class Attempt:
    """A process that was started, and how it went."""

    process: subprocess.Popen[str]
    happened: Path
    trace: Path
    committed: tuple[int, int]
    """The position committed before: epochs, and batches of the next."""

    returncode: int | None = None
    said: str = ""


def start(ground: Ground, name: str, *, workers: str, at: str = "", unreliable: bool = False) -> Attempt:
    """Start or resume a run in a process group of its own, with points at which something happens to it."""
    folder = Path(tempfile.mkdtemp(dir=ground.folder))
    committed = [(identity.epoch, identity.batch) for identity in checkpoint.committed(ground.run(name))]
    environment = {
        **ground.environment,
        **(ground.unreliable if unreliable else {}),
        HAPPENED: folder / "happened",
        TRACE: folder / "trace",
        CLOCK: folder / "clock",
        "PYTHONPATH": f"{SET_CLOCK}{os.pathsep}{ROOT}",
    }
    words = (*ground.words, *RECIPES[name.rstrip("0123456789")], "--run", name, "--workers", workers)
    process = start_job(*words, at=at, **environment)
    return Attempt(process, folder / "happened", folder / "trace", max(committed, default=(0, -1)))


def attend(attempt: Attempt) -> Attempt:
    """Wait until a process has ended, and read its output."""
    try:
        attempt.said = "".join(attempt.process.communicate(timeout=TIMEOUT_S))
    except subprocess.TimeoutExpired:
        send(attempt, signal.SIGABRT)
        attempt.said = "hung; " + "".join(attempt.process.communicate())
    attempt.returncode = attempt.process.returncode
    return attempt


def send(attempt: Attempt, number: int) -> bool:
    """Send a signal to the group of a process that runs; false if it has ended."""
    if attempt.process.poll() is None:
        os.killpg(attempt.process.pid, number)
        return True
    return False


def strike(
    found: Storm, ground: Ground, name: str, ways: dict[str, tuple[str, str]], chance: random.Random
) -> set[str]:
    """Start a process, disturb it by a trial and an ending, and see that nothing is wrong with how it took that.

    Returns:
        The ways that it was really disturbed in; it may have ended before.
    """
    specs = [f"{place}:{chance.randint(1, CALLS.get(place, 1))}:{way}" for way, place in ways.values()
             if way != "faults" and place != INSTANT]  # fmt: skip
    trial, ending = ways["trial"], ways["ending"]
    faults = ground.num_faults()
    attempt = start(ground, name, workers=chance.choice("012"), at=",".join(specs), unreliable=trial[0] == "faults")
    happened = set()
    for way, place in sorted(ways.values(), key=lambda way: way[0] in ENDINGS):
        if place == INSTANT and way != "faults":
            time.sleep(chance.uniform(0, LONGEST_S / 2))
            if disturb(attempt, way):
                happened.add(way)
    attend(attempt)
    if attempt.happened.exists():
        happened |= set(attempt.happened.read_text().splitlines())
    if ground.num_faults() > faults:
        happened.add("faults")
    found.disturbances.update((way, place if way != "faults" else "bucket") for way, place in ways.values()
                              if way in happened)  # fmt: skip
    allowed = {"kill": {-signal.SIGKILL, 0}}.get(ending[0], {0, 75}) if ending[0] in happened else {0}
    allowed |= {75} if "faults" in happened else set()
    where = f"{name}, {' and '.join(f'{way} at {place}' for way, place in ways.values())}"
    found.failures += [f"{where}: {problem}" for problem in problems_of(attempt, allowed, ground, name)]
    return happened


def disturb(attempt: Attempt, way: str) -> bool:
    """Disturb a process from outside; false if it has ended."""
    if way in ENDINGS:
        if way != "kill":
            wait_until(lambda: attempt.process.poll() is not None or listens(attempt.process))
        return send(attempt, ENDINGS[way])
    if way == "long pause":
        if not send(attempt, signal.SIGSTOP):
            return False
        time.sleep(PAUSE_S)
        return send(attempt, signal.SIGCONT)
    clock = attempt.happened.with_name("clock")
    clock.with_name("new").write_text(str(SECONDS[way]))
    clock.with_name("new").replace(clock)
    return attempt.process.poll() is None


def listens(process: subprocess.Popen[str]) -> bool:
    """Whether a process has a handler of its own for SIGTERM; before, a signal ends it as any other program."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def problems_of(attempt: Attempt, allowed: set[int], ground: Ground, name: str) -> list[str]:
    """Return the problems of a process and its end."""
    problems = []
    if attempt.returncode not in allowed:
        problems.append(f"exit {attempt.returncode} and not of {sorted(allowed)}: {attempt.said[-1500:]}")
    if "Traceback" in attempt.said:
        problems.append(f"a traceback: {attempt.said[-3000:]}")
    steps = [json.loads(line) for line in attempt.trace.read_text().splitlines()] if attempt.trace.exists() else []
    if again := [(step["epoch"], step["batch"]) for step in steps
                 if (step["epoch"] - 1, step["batch"]) <= attempt.committed]:  # fmt: skip
        problems.append(f"trained {again} again, where {attempt.committed} was committed")
    run = ground.run(name)
    with tempfile.TemporaryDirectory(dir=ground.folder) as folder:
        for identity in checkpoint.committed(run):
            problems += checkpoint.verify(run, identity, Path(folder))
    return problems


def ends_of(run: Run) -> dict[str, Any]:
    """Return what a finished run came to, apart from how long that took: tensors, rows and the final record."""
    final = run.final()
    assert final is not None, f"run {run.name} is not finished"
    newest = checkpoint.read_manifest(run, checkpoint.committed(run)[-1])
    rows = list(csv.DictReader(io.StringIO(run.store.read(run.key("results.csv")).decode())))
    return {
        "tensors": final_tensors(final) | newest.metadata.digests,
        "results.csv": [{name: value for name, value in row.items() if name != "time"} for row in rows],
        **final.model_dump(include={"reason", "num_epochs", "best_epoch", "comparison", "course", "bits"}),
    }


class Unreliable:
    """Faults on the way to the emulator."""

    def __init__(self, proxy: Proxy) -> None:
        self._chance, self.num = random.Random(), 0  # noqa: S311 -- not for secrets
        self._put, self._damaged = Lock(), set[str]()
        proxy.answer, proxy.lose, proxy.damage = self._answer, self._lose, self._damage

    def _happens(self) -> bool:
        with self._put:
            happening = self._chance.random() < UNRELIABLE_SHARE
            self.num += happening
        return happening

    def _answer(self, _sent: Sent) -> tuple[int, str] | None:
        return (self._chance.choice([429, 500, 503]), "not now") if self._happens() else None

    def _lose(self, _sent: Sent) -> bool:
        return self._happens()

    def _damage(self, sent: Sent, body: bytes) -> bytes:
        if sent.method != "GET" or not body or sent.path in self._damaged or not self._happens():
            return body
        self._damaged.add(sent.path)  # what arrives damaged twice is damaged in the bucket
        return body[:-1] + bytes([body[-1] ^ 1])


@contextmanager
def emulated_ground(emulator: Emulator, folder: Path, weights: Path) -> Iterator[Ground]:
    """Yield a bucket of the emulator, with a proxy before it on which requests fail."""
    with running_proxy(emulator.url) as proxy, pytest.MonkeyPatch.context() as patch:
        faults = Unreliable(proxy)
        patch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        unreliable = {"STORAGE_EMULATOR_HOST": proxy.url}
        ways = {"environment": emulator.env, "unreliable": unreliable, "num_faults": lambda: faults.num}
        yield make_ground(emulator.make_bucket(), folder, weights, **ways)


def run_storm(num: int, seed: int) -> Storm:
    """Storm a folder and an emulated bucket, half of the disturbances each."""
    found = Storm()
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        folder = Path(name)
        weights = learn(folder)
        storm(found, make_ground(str(folder / "bucket"), folder, weights), num // 2, seed)
        (folder / "emulated").mkdir()
        with running_emulator() as emulator, emulated_ground(emulator, folder / "emulated", weights) as ground:
            storm(found, ground, num - num // 2, seed + 1)
    return found


if __name__ == "__main__":
    seed = int(time.time())
    print(f"seed {seed}")
    result = run_storm(int(sys.argv[1]), seed)
    print(result.table())
    print(f"{result.num_resumed} resumptions from a checkpoint")
    print("\n".join(result.failures) or "PASS: every run ended with the tensors and metrics of the undisturbed one")
    sys.exit(bool(result.failures))
