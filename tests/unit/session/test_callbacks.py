"""Session callbacks at each step, with parts that only record their calls."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from job.errors import BackgroundError, PeerError, PreemptionError, StoreError
from job.goodput import Phase, PhaseTimer
from job.runs.records import CheckpointId
from job.session.callbacks import FollowerCallbacks, SessionCallbacks
from job.session.checkpoint_schedule import CheckpointSchedule
from job.session.preemption import PreemptionWatcher
from job.training.callbacks import Step

ROW = {"epoch": 1}


def step(epoch, batch):
    """Return a step."""
    return Step(epoch=epoch, batch=batch, num_batches=6, losses={}, images=None)


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


class Parts:
    """The parts of a session around its callbacks."""

    def __init__(self, restored=None, *, due=False):
        self.committed, self.beats, self.failing = [], 0, []
        self.due, self.error = due, None
        self.peers = None
        self.preemption = PreemptionWatcher()
        self.timer = PhaseTimer()
        self.callbacks = SessionCallbacks(
            committer=SimpleNamespace(
                submit=lambda snapshot, **_about: self.committed.append(snapshot), check=self.check, is_idle=True
            ),
            schedule=SimpleNamespace(due=lambda _num_left, *, is_idle: self.due and is_idle, taking=nullcontext),
            reporter=SimpleNamespace(
                on_step=lambda _step: None, on_epoch=lambda _row: None, on_validation_batch=lambda: None
            ),
            context=SimpleNamespace(
                timer=self.timer,
                preemption=self.preemption,
                group=SimpleNamespace(agree=self.agree),
                watchdog=SimpleNamespace(beat=self.beat),
            ),
            restored=restored,
            furthest_position=(0, 0),
            checks=(self.fail,),
            synchronize=lambda: None,
        )

    def beat(self):
        self.beats += 1

    def check(self):
        if self.error:
            raise self.error

    def fail(self):
        for error in self.failing:
            raise error

    def agree(self, level):
        if self.peers:
            raise self.peers
        return level


def test_a_position_is_committed_once():
    """A position that is committed, or was restored, is not committed again."""
    parts = Parts(restored=CheckpointId(1, 2, 1))
    parts.callbacks.commit(lambda: "restored")
    assert parts.committed == []
    parts.due = True
    parts.callbacks.on_step(step(2, 3), lambda: "step")
    parts.callbacks.commit(lambda: "again")
    assert parts.committed == ["step"]
    parts.callbacks.on_epoch({"epoch": 2}, lambda: "epoch")
    parts.callbacks.commit(lambda: "again")
    assert parts.committed == ["step", "epoch"]


def test_the_beginning_is_committed_if_nothing_was_restored():
    """Row 0 of a new run is a position that no checkpoint has."""
    parts = Parts()
    parts.callbacks.on_epoch({"epoch": 0}, lambda: "row 0")
    assert parts.committed == ["row 0"]


def test_a_notice_commits_the_step_and_ends_training():
    """The step during which a notice came is committed before training ends by it, due or not."""
    parts = Parts()
    parts.preemption.pending = PreemptionError("SIGTERM", "preempted")
    with pytest.raises(PreemptionError):
        parts.callbacks.on_step(step(1, 1), lambda: "step")
    assert parts.committed == ["step"]


def test_a_step_is_committed_when_it_is_due_and_not_otherwise():
    """Without a notice the schedule decides."""
    parts = Parts()
    parts.callbacks.on_step(step(1, 1), lambda: "first")
    parts.due = True
    parts.callbacks.on_step(step(1, 2), lambda: "second")
    assert parts.committed == ["second"]


def test_while_a_commit_is_under_way_no_step_is_committed_but_with_a_notice():
    """A step that is due waits for the commit before it, an epoch and the last step before a notice do not."""
    parts = Parts()
    parts.due, parts.callbacks.committer.is_idle = True, False
    parts.callbacks.on_step(step(1, 1), lambda: "step")
    assert parts.committed == []
    parts.callbacks.on_epoch(ROW, lambda: "epoch")
    parts.preemption.pending = PreemptionError("SIGTERM", "preempted")
    with pytest.raises(PreemptionError):
        parts.callbacks.on_step(step(2, 1), lambda: "last step")
    assert parts.committed == ["epoch", "last step"]


@pytest.mark.parametrize("notice", [None, PreemptionError("SIGTERM", "preempted")])
def test_a_peer_that_is_lost_costs_no_step(notice):
    """The step on which the others no longer agree is whole, and is committed; a notice is the reason to end if there
    is one.
    """
    parts = Parts()
    parts.peers, parts.preemption.pending = PeerError("gone"), notice
    with pytest.raises(type(notice or parts.peers)):
        parts.callbacks.on_step(step(1, 1), lambda: "step")
    assert parts.committed == ["step"]


@pytest.mark.parametrize("act", ["step", "validation"])
def test_what_fails_beside_training_ends_it_at_the_next_step_or_batch(act):
    """A commit that failed, or a thread that died, is raised at the next step or batch of a validation."""
    for set_up in ({"error": StoreError("no permission")}, {"failing": [BackgroundError("a thread")]}):
        parts = Parts()
        vars(parts).update(set_up)
        with pytest.raises((StoreError, BackgroundError)):
            parts.callbacks.on_step(
                step(1, 1), lambda: "step"
            ) if act == "step" else parts.callbacks.on_validation_batch()
        assert parts.committed == []


def test_steps_and_batches_of_a_validation_are_activity():
    """The watchdog is shown each of them, by the processes that follow as well."""
    parts = Parts()
    parts.callbacks.on_step(step(1, 1), lambda: "step")
    parts.callbacks.on_validation_batch()
    assert parts.beats == 2
    FollowerCallbacks(parts.callbacks.context).on_step(step(1, 1), None)
    assert parts.beats == 3


def test_a_gpu_has_done_its_steps_before_a_checkpoint_stops_training():
    """The seconds for which a GPU still trains are useful, not those of the checkpoint; where nothing is committed,
    nothing is waited for.
    """
    parts, clock = Parts(), Clock()
    parts.timer = parts.callbacks.context.timer = PhaseTimer(clock)
    parts.callbacks.schedule = CheckpointSchedule(0.0, [], clock)
    parts.callbacks.synchronize = lambda: clock.passes(2.0)

    def snapshot():
        clock.passes(0.5)
        return "epoch"

    parts.callbacks.enter(Phase.USEFUL)
    parts.callbacks.on_step(step(1, 6), snapshot)
    assert clock.now == 0.0
    parts.callbacks.on_epoch(ROW, snapshot)
    parts.callbacks.commit(snapshot)
    seconds = parts.timer.seconds()
    assert (seconds[Phase.USEFUL], seconds[Phase.STALL]) == (2.0, 0.5)
    assert parts.callbacks.schedule.stall_s == 0.5


def test_rebooked_seconds_are_those_of_steps():
    """Seconds that turn out to be useful ones are recomputed up to the furthest position that is known."""
    parts, clock = Parts(), Clock()
    parts.timer = parts.callbacks.context.timer = PhaseTimer(clock)
    parts.callbacks.furthest_position = (0, 2)
    parts.callbacks.enter(Phase.DATA_WAIT)
    clock.passes(3.0)
    parts.callbacks.rebook(1.0, Phase.DATA_WAIT, Phase.USEFUL)
    parts.callbacks.on_step(step(1, 2), lambda: "step")
    parts.callbacks.rebook(0.5, Phase.DATA_WAIT, Phase.USEFUL)
    seconds = parts.timer.seconds()
    assert (seconds[Phase.DATA_WAIT], seconds[Phase.RECOMPUTED], seconds[Phase.USEFUL]) == (1.5, 1.0, 0.5)


def test_what_the_copy_of_a_snapshot_holds_up_is_part_of_its_stall():
    """The seconds for which an optimizer step waits count as stall, in the phases and in the cost of the checkpoint."""
    parts, clock = Parts(), Clock()
    parts.timer = parts.callbacks.context.timer = PhaseTimer(clock)
    parts.callbacks.schedule = CheckpointSchedule(0.0, [], clock)
    parts.callbacks.enter(Phase.USEFUL)
    parts.callbacks.on_epoch(ROW, lambda: clock.passes(0.5))
    clock.passes(2.0)
    with parts.callbacks.stalled():
        clock.passes(0.25)
    seconds = parts.timer.seconds()
    assert (seconds[Phase.USEFUL], seconds[Phase.STALL]) == (2.0, 0.75)
    assert parts.callbacks.schedule.stall_s == 0.75


def test_steps_that_an_earlier_attempt_did_are_recomputed():
    """Up to the furthest position that is known, useful time is counted as recomputed."""
    parts = Parts()
    parts.callbacks.furthest_position = (0, 2)
    parts.callbacks.enter(Phase.USEFUL)
    assert parts.timer.enter(Phase.STALL) is Phase.RECOMPUTED
    parts.callbacks.on_step(step(1, 2), lambda: "step")
    parts.callbacks.enter(Phase.USEFUL)
    assert parts.timer.enter(Phase.STALL) is Phase.USEFUL


def test_a_follower_ends_with_the_notice_of_all():
    """A process that only follows stops at the step on which all agree."""
    parts = Parts()
    parts.preemption.pending = PreemptionError("SIGTERM", "preempted")
    with pytest.raises(PreemptionError):
        FollowerCallbacks(parts.callbacks.context).on_step(step(1, 1), None)
