"""The whole cloud path on this machine: ``make drill RECIPE=A PREEMPTIONS=5``.

A run is submitted with the real command to a Batch service that starts and kills real processes (or containers, with
``CONTAINER_ENGINE`` and ``IMAGE``), is preempted at random instants with notice and without, outlives Batch's retries
and its supervisor, and has to end with the tensors of an undisturbed run.
"""

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, chdir
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import yaml

from job.cli.app import main
from job.cli.supervise import attempt_lines
from job.cloud.allowance import load_allowance
from job.cloud.batch import Batch
from job.cloud.status import History
from job.cloud.supervisor import Supervisor
from job.runs.records import CheckpointId
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.cloud.conftest import SETTINGS
from tests.support.attempt_records import final_tensors
from tests.support.cli_process import TIMEOUT_S, job, kill, messages, start_job, wait_until
from tests.support.emulator import running_emulator
from tests.support.fake_batch import PREEMPTED, FakeBatch, FakeJob, running_batch
from tests.support.fake_google_project import running_project
from tests.support.fake_metadata_server import running_metadata_server
from tests.support.tiny_dataset import make_tiny_dataset

PREEMPTED_RUN, UNTOUCHED_RUN = "drill", "untouched"

FULL_NOTICE_S = 30.0
"""What a Spot machine has; a shorter one may end in the middle of the last checkpoint."""

EPOCHS_PER_KILL, SPARE_EPOCHS = 1.5, 3
"""Long enough that the run is not finished before the last kill: three of four attempts train, until their first
checkpoint is seen and then for up to half an epoch."""

KILL_EVERY = 4
"""Each fourth kill strikes while the attempt starts, the others once it has trained."""

WORDS = (
    *("--model", "yolo11n.yaml", "--imgsz", "64", "--batch", "4", "--nbs", "16", "--warmup-epochs", "0"),
    *("--plots", "false", "--workers", "0", "--device", "cpu", "--checkpoint-every", "1"),
)
"""Small, with gradients that wait for an optimizer step at most checkpoints."""


@dataclass(frozen=True)
class Preemption:
    """One machine taken away."""

    trained: bool
    """Whether the attempt had committed a checkpoint by then."""

    notice_s: float | None

    @property
    def noticed(self) -> bool:
        """Whether there was time to commit once more."""
        return self.notice_s == FULL_NOTICE_S

    def __str__(self) -> str:
        when = "while it trained" if self.trained else "while it started"
        notice = "no notice" if self.notice_s is None else f"notice of {self.notice_s:.1f} s"
        return f"{when}, {notice}"


class Drill:
    """One run that is preempted a number of times, and one that is not."""

    def __init__(self, recipe: str, num_preemptions: int, seed: int, say: Callable[..., None] = print) -> None:
        self.recipe, self.num_preemptions, self.say = recipe, num_preemptions, say
        self.chance = random.Random(seed)  # noqa: S311 -- not for secrets
        self.preemptions: list[Preemption] = []
        self.trouble: list[BaseException] = []
        self.store = None
        self.batch: FakeBatch = None

    def run(self) -> History:
        """Carry it out, and return what is known of the preempted run at its end."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drill-")))
            stack.enter_context(chdir(folder))
            emulator = stack.enter_context(running_emulator())
            metadata = stack.enter_context(running_metadata_server())

            def new_machine():
                metadata.set("instance/preempted", "FALSE")
                return metadata.env, metadata.preempt

            (folder / "machines").mkdir()
            environment = {
                **emulator.env,
                "NO_GCE_CHECK": "true",
                "OMP_NUM_THREADS": "1",
                "WANDB_MODE": "disabled",
            }
            self.batch = FakeBatch(
                folder / "machines",
                environment=environment,
                engine=os.environ.get("CONTAINER_ENGINE") if os.environ.get("IMAGE") else None,
                image=os.environ.get("IMAGE"),
                metadata=new_machine,
            )
            stack.enter_context(running_batch(self.batch))
            project = stack.enter_context(running_project())
            location = emulator.make_bucket()
            hosts = {"BATCH_EMULATOR_HOST": self.batch.host, **project.env}
            stack.enter_context(patch.dict(os.environ, {**environment, "JOB_BUCKET": location, **hosts}))
            self.store = open_store(location)
            (folder / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "wandb_secret": None}))
            tiny = make_tiny_dataset(folder / "tiny", num_train=22, num_val=4)
            assert main(["data", "push", str(tiny), "--dataset", "tiny"]) == 0
            self._straight()
            self._preempted()
            supervisor = Supervisor(
                run=Run(self.store, PREEMPTED_RUN), batch=Batch.connect(), allowance=load_allowance({}), poll_s=0
            )
            history = supervisor.history()
            self._check(history)
        return history

    def _submit(self, run: str) -> None:
        epochs = str(int(EPOCHS_PER_KILL * self.num_preemptions) + SPARE_EPOCHS)
        assert main(["submit", "--recipe", self.recipe, *WORDS, "--epochs", epochs, "--run", run]) == 0

    def _straight(self) -> None:
        started = time.monotonic()
        self._submit(UNTOUCHED_RUN)
        done = job("supervise", UNTOUCHED_RUN, "--poll", "0.2")
        assert done.returncode == 0, done.stderr + self._said()
        self.say(f"untouched run: finished in {time.monotonic() - started:.0f} s")

    def _preempted(self) -> None:
        started = time.monotonic()
        self._submit(PREEMPTED_RUN)
        chaos = threading.Thread(target=self._chaos, daemon=True)
        chaos.start()
        supervisor = start_job("supervise", PREEMPTED_RUN, "--poll", "0.2")
        wait_until(lambda: len(self.preemptions) > self.num_preemptions // 2 or bool(self.trouble))
        kill(supervisor)  # its memory is the bucket: another one goes on
        self.say("the supervisor was killed; another one goes on")
        done = job("supervise", PREEMPTED_RUN, "--poll", "0.2")
        chaos.join(TIMEOUT_S)
        if self.trouble:
            raise self.trouble[0]
        assert done.returncode == 0, done.stderr + self._said()
        self.say("\n".join(line for line in messages(done.stderr) or done.stderr.splitlines()))
        self.say(f"preempted run: finished in {time.monotonic() - started:.0f} s")

    def _chaos(self) -> None:
        """Take machines away, each at another instant and in another way."""
        try:
            for number in range(self.num_preemptions):
                newest = max(Run(self.store, PREEMPTED_RUN).attempt_numbers(), default=0)
                fake = self._machine()
                if number % KILL_EVERY == KILL_EVERY - 1:
                    trained, wait_s = False, self.chance.uniform(0.0, 5.0)
                else:
                    self._wait_for_checkpoint(newest)
                    trained, wait_s = True, self.chance.uniform(0.0, self._epoch_s() / 2)
                notice_s = [None, self.chance.uniform(0.1, 1.5), FULL_NOTICE_S][number % 3]
                code = PREEMPTED if self.chance.random() < 0.8 else None
                time.sleep(wait_s)
                name = fake.job.name
                taken = self.batch.preempt(name, notice_s=notice_s, enough=self._has_ended, code=code)
                assert taken, "the run ended before it was preempted"
                self.preemptions.append(Preemption(trained, notice_s))
                self.say(f"preemption {number + 1}: {self.preemptions[-1]}", flush=True)
        except BaseException as error:
            self.trouble.append(error)
            raise

    def _epoch_s(self) -> float:
        """Return how long the untouched run took for an epoch."""
        final = Run(self.store, UNTOUCHED_RUN).final()
        return final.train_s / final.num_epochs

    def _has_ended(self) -> bool:
        """Whether the newest attempt has recorded its end, so that all it does is wait."""
        run = Run(self.store, PREEMPTED_RUN)
        numbers = run.attempt_numbers()
        return bool(numbers) and run.attempt(numbers[-1]).end is not None

    def _machine(self) -> FakeJob:
        """Wait for a machine that works on the run, and return its job."""

        def find() -> FakeJob | None:
            return next(
                (fake for name, fake in list(self.batch.jobs.items()) if "drill" in name and fake.machine), None
            )

        wait_until(lambda: find() is not None)
        found = find()
        assert found is not None
        return found

    def _wait_for_checkpoint(self, after: int) -> None:
        """Wait until an attempt after that one has committed a checkpoint."""
        prefix = f"runs/{PREEMPTED_RUN}/checkpoints/"

        def reached() -> bool:
            names = [stored.key.removeprefix(prefix).split("/") for stored in self.store.list(prefix)]
            committed = [CheckpointId.parse(name) for name, file in names if file == "manifest.json"]
            return any(checkpoint and checkpoint.attempt > after for checkpoint in committed)

        wait_until(reached)

    def _check(self, history: History) -> None:
        """Compare the two runs."""
        finals = {name: Run(self.store, name).final() for name in (UNTOUCHED_RUN, PREEMPTED_RUN)}
        tensors = [final_tensors(final) for final in finals.values()]
        self.say("\n".join(attempt_lines(history.attempts)))
        self.say(
            f"{len(history.submissions)} submissions, {history.num_preemptions} preemptions, "
            f"{history.num_crashes} crashes"
        )
        for name, found in zip(finals, tensors, strict=True):
            self.say(f"{name:10} {', '.join(f'{file} {digest[:16]}' for file, digest in found.items())}")
        assert tensors[0] == tensors[1], "the preempted run ended with other tensors"
        assert len(self.preemptions) == self.num_preemptions
        recorded = sum(attempt.reason == "preempted" for attempt in history.attempts)
        assert recorded >= sum(entry.noticed and entry.trained for entry in self.preemptions), "a notice was not obeyed"
        assert history.num_preemptions == self.num_preemptions
        assert history.num_crashes == 0
        assert len(history.submissions) == 1 + self.num_preemptions // 11  # the first try and Batch's ten retries

    def _said(self) -> str:
        """Return the last lines of the machines' logs."""
        logs = sorted((Path.cwd() / "machines").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in logs[-2:])


if __name__ == "__main__":
    began = time.monotonic()
    Drill(sys.argv[1], int(sys.argv[2]), seed=int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())).run()
    print(f"PASS in {time.monotonic() - began:.0f} s: the run ended with the tensors of an undisturbed one")
