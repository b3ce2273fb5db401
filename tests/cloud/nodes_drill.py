"""Several machines on this one: ``make drill RECIPE=A PREEMPTIONS=5 NODES=2``.

A run of two nodes is started by SkyPilot's task, loses one of them at random instants, is recovered as SkyPilot does,
and has to end with the tensors of an undisturbed run of two processes.
"""

import shutil
import time

from job.runs.run import Run
from job.text import table
from tests.cloud.rehearsal import PREEMPTED_RUN, UNTOUCHED_RUN, Rehearsal
from tests.support.cli_process import TIMEOUT_S, job
from tests.support.fake_sky import ManagedJob, running_job
from tests.support.tiny_architecture import FILE

NUM_NODES = 2


class NodesDrill(Rehearsal):
    """The rehearsal on two nodes, of which one or the other is taken."""

    epochs_per_kill = 4.0
    """Several of the smallest model's pass before a checkpoint is seen."""

    def run(self) -> None:
        """Carry it out."""
        with self._prepared() as folder:
            words = ("--model", FILE.name, *self.words)
            self._straight(words)
            started = time.monotonic()
            envs = {
                "RECIPE": self.recipe,
                "RUN": PREEMPTED_RUN,
                "BUCKET": self.store.uri,
                "ARGUMENTS": " ".join(words),
            }
            managed = ManagedJob(folder / "machines", NUM_NODES, envs, self.environment, (FILE,))
            with running_job(managed):
                for number in range(self.num_preemptions):
                    self.say(f"preemption {number + 1}: {self._preempt(managed, number)}", flush=True)
                    managed.launch()
                codes = [node.process.wait(TIMEOUT_S) for node in managed.nodes]
            assert codes == [0] * NUM_NODES, f"ended with {codes}: {self._said()}"
            self.say(f"preempted run: finished in {time.monotonic() - started:.0f} s")
            self._check(managed)

    def _straight(self, words: tuple[str, ...]) -> None:
        started = time.monotonic()
        shutil.copy(FILE, ".")
        done = job("train", "--recipe", self.recipe, *words, "--run", UNTOUCHED_RUN, "--device", "cpu,cpu")
        assert done.returncode == 0, done.stderr
        self.say(f"untouched run: finished in {time.monotonic() - started:.0f} s")

    def _preempt(self, managed: ManagedJob, number: int) -> str:
        """Take one of the nodes, end the other, and return how."""
        rank = self.chance.randrange(NUM_NODES)
        taken, other = managed.nodes[rank], managed.nodes[1 - rank]
        newest = max(Run(self.store, PREEMPTED_RUN).attempt_numbers(), default=0)
        trained, wait_s = self._kill_trains(number)
        if trained:
            self._wait_for_checkpoint(newest, managed.nodes[0].process)
        time.sleep(wait_s)
        assert taken.process.poll() is None, f"the run ended before it was preempted: {self._said()}"
        taken.kill()
        when = f"node {rank} {'while it trained' if trained else 'while it started'}"
        if not trained or self.chance.random() < 0.5:
            other.stop()
            return f"{when}, the other was stopped"
        code = other.process.wait(TIMEOUT_S)
        assert code in managed.recovered_codes, f"the other ended with {code}: {self._said()}"
        return f"{when}, the other ended with {code}"

    def _check(self, managed: ManagedJob) -> None:
        """Compare the two runs."""
        run = Run(self.store, PREEMPTED_RUN)
        attempts = [run.attempt(number) for number in run.attempt_numbers()]
        rows = [("attempt", "claimed", "how", "resumed after")]
        for attempt in attempts:
            resumed = str(attempt.receipt.position) if attempt.receipt else ""
            how = attempt.state(newest=False)
            rows.append((str(attempt.number), attempt.claim.claimed_at[:19], how, resumed))
        self.say("\n".join(table(rows)))
        self.say(f"{managed.num_launches} launches of {NUM_NODES} nodes, {len(attempts)} attempts")
        self._compare()
        assert run.record().facts.world_size == NUM_NODES
        assert len(attempts) <= managed.num_launches, "not the node of rank 0 alone claims the run"
        assert attempts[-1].receipt is not None, "nothing was resumed"
