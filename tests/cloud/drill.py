"""The whole cloud path on this machine: ``make drill RECIPE=A PREEMPTIONS=5``.

A run is submitted with the real command to a Batch service that starts and kills real processes (or containers, with
``CONTAINER_ENGINE`` and ``IMAGE``), is preempted at random instants with notice and without, outlives Batch's retries
and its supervisor, and has to end with the tensors of an undisturbed run.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import yaml

from job.cli.app import main
from job.cli.supervise import attempt_lines
from job.cloud.allowance import load_allowance
from job.cloud.batch import Batch
from job.cloud.status import History
from job.cloud.supervisor import Supervisor
from job.errors import UsageError
from job.runs.run import Run
from tests.cloud.conftest import SETTINGS
from tests.cloud.nodes_drill import NodesDrill
from tests.cloud.rehearsal import PREEMPTED_RUN, UNTOUCHED_RUN, Rehearsal
from tests.support.cli_process import TIMEOUT_S, job, kill, messages, start_job, wait_until
from tests.support.fake_batch import PREEMPTED, FakeBatch, FakeJob, running_batch
from tests.support.fake_google_project import running_project
from tests.support.fake_metadata_server import running_metadata_server

FULL_NOTICE_S = 30.0
"""What a Spot machine has; a shorter one may end in the middle of the last checkpoint."""


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


class Drill(Rehearsal):
    """The rehearsal on Cloud Batch, with a supervisor that is killed as well."""

    def __init__(self, recipe: str, num_preemptions: int, seed: int, say: Callable[..., None] = print) -> None:
        super().__init__(recipe, num_preemptions, seed, say)
        self.preemptions: list[Preemption] = []
        self.trouble: list[BaseException] = []
        self.batch: FakeBatch = None

    def run(self) -> History:
        """Carry it out, and return what is known of the preempted run at its end."""
        with ExitStack() as stack:
            folder = stack.enter_context(self._prepared())
            metadata = stack.enter_context(running_metadata_server())

            def new_machine():
                metadata.set("instance/preempted", "FALSE")
                return metadata.env, metadata.preempt

            self.batch = FakeBatch(
                folder / "machines",
                environment=self.environment,
                engine=os.environ.get("CONTAINER_ENGINE") if os.environ.get("IMAGE") else None,
                image=os.environ.get("IMAGE"),
                metadata=new_machine,
            )
            stack.enter_context(running_batch(self.batch))
            project = stack.enter_context(running_project())
            stack.enter_context(patch.dict(os.environ, {"BATCH_EMULATOR_HOST": self.batch.host, **project.env}))
            (folder / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "wandb_secret": None}))
            self._straight()
            self._preempted()
            supervisor = Supervisor(
                run=Run(self.store, PREEMPTED_RUN), batch=Batch.connect(), allowance=load_allowance({}), poll_s=0
            )
            history = supervisor.history()
            self._check(history)
        return history

    def _submit(self, run: str) -> None:
        words = ("--model", "yolo11n.yaml", "--device", "cpu", *self.words)
        assert main(["submit", "--recipe", self.recipe, *words, "--run", run]) == 0

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
                trained, wait_s = self._kill_trains(number)
                if trained:
                    self._wait_for_checkpoint(newest)
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

    def _check(self, history: History) -> None:
        """Compare the two runs."""
        self.say("\n".join(attempt_lines(history.attempts)))
        self.say(
            f"{len(history.submissions)} submissions, {history.num_preemptions} preemptions, "
            f"{history.num_crashes} crashes"
        )
        self._compare()
        assert len(self.preemptions) == self.num_preemptions
        recorded = sum(attempt.reason == "preempted" for attempt in history.attempts)
        assert recorded >= sum(entry.noticed and entry.trained for entry in self.preemptions), "a notice was not obeyed"
        assert history.num_preemptions == self.num_preemptions
        assert history.num_crashes == 0
        assert len(history.submissions) == 1 + self.num_preemptions // 11  # the first try and Batch's ten retries


def chosen_drill(recipe: str, preemptions: str, nodes: str, seed: str) -> Rehearsal:
    """Return the drill that ``make drill`` asks for; raises `UsageError` with every word that is wrong."""
    problems = [
        f"{name}: must be a whole number, got {text!r}"
        for name, text in (("PREEMPTIONS", preemptions), ("the seed in ARGS", seed))
        if not (text.isascii() and text.isdecimal())
    ]
    if nodes not in {"1", "2"}:
        problems.append(f"NODES: must be 1, by Cloud Batch, or 2, by SkyPilot, got {nodes!r}")
    if nodes == "2" and os.environ.get("IMAGE"):
        problems.append("IMAGE: two nodes are processes here, got an image; leave it out")
    if problems:
        raise UsageError("make drill: cannot be carried out; correct its variables", problems)
    return (NodesDrill if nodes == "2" else Drill)(recipe, int(preemptions), int(seed))


def run_drill(words: Sequence[str]) -> None:
    """Carry out the drill that some words ask for."""
    recipe, preemptions, nodes, *seed = words
    began = time.monotonic()
    try:
        drill = chosen_drill(recipe, preemptions, nodes, *(seed or [str(int(time.time()))]))
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    drill.run()
    print(f"PASS in {time.monotonic() - began:.0f} s: the run ended with the tensors of an undisturbed one")


if __name__ == "__main__":
    run_drill(sys.argv[1:])
