"""What the drills have in common: a small run that is preempted, one that is not, and the comparison of their ends."""

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from unittest.mock import patch

from job.cli.app import main
from job.runs.records import CheckpointId
from job.runs.run import Run
from job.storage.open_store import open_store
from job.training.position import BEGINNING
from tests.support.attempt_records import final_tensors
from tests.support.cli_process import wait_until
from tests.support.emulator import running_emulator
from tests.support.tiny_dataset import make_tiny_dataset

PREEMPTED_RUN, UNTOUCHED_RUN = "drill", "untouched"

SPARE_EPOCHS = 3
"""Beyond those of the kills."""

KILL_EVERY = 4
"""Each fourth kill strikes while the attempt starts, the others once it has trained."""

WORDS = (
    *("--imgsz", "64", "--batch", "4", "--nbs", "16", "--warmup-epochs", "0"),
    *("--plots", "false", "--workers", "0", "--checkpoint-every", "1"),
)
"""Small, with gradients that wait for an optimizer step at most checkpoints."""


class Rehearsal:
    """One run that is preempted a number of times, and one that is not."""

    epochs_per_kill = 1.5
    """Long enough that the run is not finished before the last kill: three of four attempts train, until their first
    checkpoint is seen and then for up to half an epoch."""

    def __init__(self, recipe: str, num_preemptions: int, seed: int, say: Callable[..., None] = print) -> None:
        self.recipe, self.num_preemptions, self.say = recipe, num_preemptions, say
        self.chance = random.Random(seed)  # noqa: S311 -- not for secrets
        self.words = (*WORDS, "--epochs", str(int(self.epochs_per_kill * num_preemptions) + SPARE_EPOCHS))
        self.store = None
        self.environment: dict[str, str] = {}
        """What every machine has."""

    @contextmanager
    def _prepared(self) -> Iterator[Path]:
        """Work in an empty folder, with an emulated bucket that has a dataset."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drill-")))
            stack.enter_context(chdir(folder))
            emulator = stack.enter_context(running_emulator())
            self.environment = {
                **emulator.env,
                "NO_GCE_CHECK": "true",
                "OMP_NUM_THREADS": "1",
                "WANDB_MODE": "disabled",
            }
            location = emulator.make_bucket()
            stack.enter_context(patch.dict(os.environ, {**self.environment, "JOB_BUCKET": location}))
            self.store = open_store(location)
            tiny = make_tiny_dataset(folder / "tiny", num_train=22, num_val=4)
            assert main(["data", "push", str(tiny), "--dataset", "tiny"]) == 0
            (folder / "machines").mkdir()
            yield folder

    def _kill_trains(self, number: int) -> tuple[bool, float]:
        """Return whether a kill, counted from 0, comes after a checkpoint, and how many seconds later it strikes."""
        if number % KILL_EVERY == KILL_EVERY - 1:
            return False, self.chance.uniform(0.0, 5.0)
        return True, self.chance.uniform(0.0, self._epoch_s() / 2)

    def _epoch_s(self) -> float:
        """Return how long the untouched run took for an epoch."""
        final = Run(self.store, UNTOUCHED_RUN).final()
        return final.train_s / final.num_epochs

    def _wait_for_checkpoint(self, after: int, process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until an attempt after that one has committed trained steps; a process must not end before."""
        prefix = f"runs/{PREEMPTED_RUN}/checkpoints/"

        def reached() -> bool:
            names = [stored.key.removeprefix(prefix).split("/") for stored in self.store.list(prefix)]
            committed = [CheckpointId.parse(name) for name, file in names if file == "manifest.json"]
            return any(each and each.attempt > after and each.position != BEGINNING for each in committed)

        wait_until(reached, process)

    def _compare(self) -> None:
        """Compare the tensors that the two runs ended with."""
        finals = {name: Run(self.store, name).final() for name in (UNTOUCHED_RUN, PREEMPTED_RUN)}
        tensors = [final_tensors(final) for final in finals.values()]
        for name, found in zip(finals, tensors, strict=True):
            self.say(f"{name:10} {', '.join(f'{file} {digest[:16]}' for file, digest in found.items())}")
        assert tensors[0] == tensors[1], "the preempted run ended with other tensors"

    def _said(self) -> str:
        """Return the last lines of the machines' logs."""
        logs = sorted((Path.cwd() / "machines").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in logs[-2:])
