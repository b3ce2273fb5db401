"""The command line with actions at named points: ``POINT:CALL:ACTION[,...] words ...``.

The action takes place when the point is reached for the CALL-th time, and is noted in the file that `HAPPENED` names.
``kill``, ``INT``, ``TERM`` and ``HUP`` are signals to the whole process group; ``pause`` stops it for a while, as a
machine does that is suspended, ``long pause`` for `PAUSE_S`; ``ahead`` and ``back`` set the clock, which takes the
folder ``clock`` on the path; ``hold`` makes the file that `HELD` names and stays there until something interrupts it,
``wait`` until it is gone, ``heed`` until a notice has come; ``break`` raises an unexpected exception.
`UNRELIABLE` names the share of what a folder does that fails.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from job.__main__ import run as run_command_line
from job.datasets import prepare
from job.datasets.dataset_report import ReportCache
from job.runs import artifacts, checkpoint, run
from job.session import campaign
from job.storage.local import FolderStore
from job.training import isolation
from tests.support.faulty_store import make_unreliable
from tests.support.synchronous_commits import commit_at_once

HELD, HAPPENED, UNRELIABLE = "TEST_HELD", "TEST_HAPPENED", "TEST_UNRELIABLE"

PAUSE_S = 3
"""Longer than Ultralytics gives the suppression of a few images' boxes."""

SECONDS = {"ahead": 86_400, "back": -3_600}
"""By which the clock is wrong once it was set."""


def die():
    """End this process and all it started, as a machine that vanishes does."""
    os.killpg(0, signal.SIGKILL)


def hold():
    """Make the file, and stay."""
    Path(os.environ[HELD]).touch()
    while True:
        time.sleep(0.01)


def wait():
    """Make the file, and continue once it is gone."""
    Path(os.environ[HELD]).touch()
    while Path(os.environ[HELD]).exists():
        time.sleep(0.01)


def heed():
    """Make the file, and continue once a notice has come, which interrupts no step."""
    preemption = signal.getsignal(signal.SIGTERM).__self__
    Path(os.environ[HELD]).touch()
    while preemption.pending is None:
        time.sleep(0.01)


def pause(seconds=0.5):
    """Stop this process and all it started, and have them continue."""
    group = os.getpgrp()
    stopped = f"until grep -q '^State:.T' /proc/{os.getpid()}/status; do sleep 0.02; done"
    subprocess.Popen(["sh", "-c", f"{stopped}; sleep {seconds}; kill -CONT -{group}"], start_new_session=True)
    os.killpg(0, signal.SIGSTOP)


def break_down():
    """Raise what nothing expects here."""
    raise KeyError("an unexpected answer")


def set_clock(seconds):
    """Set the clock wrong."""
    import sitecustomize  # noqa: PLC0415 -- the one of the folder `clock`, if that is on the path

    sitecustomize.set_clock(seconds)


ACTIONS = {
    "kill": die,
    "hold": hold,
    "wait": wait,
    "heed": heed,
    "break": break_down,
    "pause": pause,
    "long pause": lambda: pause(PAUSE_S),
    **{name: lambda seconds=seconds: set_clock(seconds) for name, seconds in SECONDS.items()},
    **{name: lambda name=name: os.killpg(0, signal.Signals[f"SIG{name}"]) for name in ("INT", "TERM", "HUP")},
}


def note(what):
    """Write down that something happened."""
    if HAPPENED in os.environ:
        with Path(os.environ[HAPPENED]).open("a") as opened:
            opened.write(f"{what}\n")


class Point:
    """Counts calls and acts at one of them."""

    def __init__(self, call, action):
        self.left, self.action = call, action

    def reached(self):
        """Act if this is the call."""
        self.left -= 1
        if self.left == 0:
            note(self.action)
            ACTIONS[self.action]()


def before(owner, name, act):
    """Call a function before another one, wherever that is called from."""
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        act(*args)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner, name, act):
    """Call a function after another one."""
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        result = original(*args, **kwargs)
        act()
        return result

    setattr(owner, name, wrapped)


def at_put(point, ending, *, during=False):
    """Reach a point when the commit protocol puts a key with an ending; `during`, while the put is under way."""
    original = checkpoint.commit

    def commit(run_, *args):
        put = run_.store.put

        def watched(key, source, **options):
            if key.endswith(ending):
                if during:
                    threading.Timer(0.001, point.reached).start()
                else:
                    point.reached()
            return put(key, source, **options)

        run_.store.put = watched
        try:
            return original(run_, *args)
        finally:
            run_.store.put = put

    checkpoint.commit = commit


def in_training(arm):
    """Arm a point in modules that may be imported only once Ultralytics is confined."""
    confine = isolation.isolate_ultralytics

    def confined(folder):
        confine(folder)
        arm()

    isolation.isolate_ultralytics = confined


def at_step(point):
    """Reach a point after the gradients of a batch, before the optimizer."""
    from job.training.loop import Training  # noqa: PLC0415 -- not before Ultralytics is confined

    after(Training, "_forward_backward", point.reached)


def at_committed_step(point):
    """Reach a point after the gradients of a batch; each batch before it is committed."""
    commit_at_once()
    at_step(point)


def at_validation(point):
    """Reach a point within a validation."""
    from ultralytics.models.yolo.detect import DetectionValidator  # noqa: PLC0415 -- Ultralytics is confined first

    before(DetectionValidator, "update_metrics", lambda *_: point.reached())


def at_nms(point):
    """Reach a point while one of the images of a batch is searched for boxes that overlap."""
    import torchvision  # noqa: PLC0415 -- seconds that only this point needs

    before(torchvision.ops, "nms", lambda *_: point.reached())


def at_final_evaluation(point):
    """Reach a point within the final evaluation."""
    from job.training.loop import Training  # noqa: PLC0415 -- Ultralytics is confined first

    before(Training, "_evaluate_best", lambda *_: at_validation(point))


def at_start_up(point):
    """Reach a point while the trainer is set up."""
    from job.training import trainer  # noqa: PLC0415 -- Ultralytics is confined first

    before(trainer, "check_det_dataset", lambda *_: point.reached())


def at_tracking(point):
    """Reach a point before an attempt, which is claimed, is tracked."""
    from job.tracking.tracker import Tracker  # noqa: PLC0415 -- only this point needs it

    before(Tracker, "__enter__", lambda *_: point.reached())


def at_picture(point):
    """Reach a point before a picture is searched."""
    from job.training.detector import Detector  # noqa: PLC0415 -- not before Ultralytics is confined

    before(Detector, "detect", lambda *_: point.reached())


def at_result(point, matches):
    """Reach a point before a key of a prediction is put."""
    before(FolderStore, "put", lambda _store, key, *_: point.reached() if matches(key) else None)
    from job.storage.gcs import GcsStore  # noqa: PLC0415 -- needs Google's libraries

    before(GcsStore, "put", lambda _store, key, *_: point.reached() if matches(key) else None)


POINTS = {
    "download": lambda point: before(prepare, "pull", lambda *_: point.reached()),
    "check": lambda point: before(ReportCache, "read", lambda *_: point.reached()),
    "start-up": lambda point: in_training(lambda: at_start_up(point)),
    "start record": lambda point: before(run.Claim, "start", lambda *_: point.reached()),
    "tracking": at_tracking,
    "step": lambda point: in_training(lambda: at_step(point)),
    "committed step": lambda point: in_training(lambda: at_committed_step(point)),
    "write": lambda point: at_put(point, "/state.pt", during=True),
    "manifest": lambda point: at_put(point, "/manifest.json"),
    "retention": lambda point: before(checkpoint, "retain", lambda *_: point.reached()),
    "mirror": lambda point: before(artifacts, "sha256_of", lambda *_: point.reached()),
    "validation": lambda point: in_training(lambda: at_validation(point)),
    "nms": lambda point: in_training(lambda: at_nms(point)),
    "final evaluation": lambda point: in_training(lambda: at_final_evaluation(point)),
    "picture": lambda point: in_training(lambda: at_picture(point)),
    "shard": lambda point: at_result(point, lambda key: key.startswith("shards/")),
    "final file": lambda point: at_result(
        point, lambda key: key.startswith(("counts", "detections", "report", "final"))
    ),
    "final record": lambda point: before(run.Run, "finish", lambda *_: point.reached()),
}
"""Where in a run something can happen."""

CAMPAIGN_POINTS = {
    "decision": lambda point: before(campaign, "next_step", lambda *_: point.reached()),
    "next run": lambda point: before(campaign.Place, "train", lambda *_: point.reached()),
}
"""Where between runs."""


def in_the_first_process(words):
    """Have the launcher start this program in place of the command line; only the first process gets to the point."""
    from job.training import launch  # noqa: PLC0415 -- imports torch, which one process alone loads later

    original = launch.elastic_launch

    def elastic_launch(config, program):
        return lambda *_words: original(config, program)("-m", "tests.support.fault_point_cli", *words)

    launch.elastic_launch = elastic_launch


if __name__ == "__main__":
    points = sys.argv[1]
    if "RANK" not in os.environ and any("," in word for word in sys.argv[2:]):
        in_the_first_process(sys.argv[1:])
    elif os.environ.get("RANK", "0") == "0":
        for spec in filter(None, points.split(",")):
            name, call, action = spec.split(":")
            (POINTS | CAMPAIGN_POINTS)[name](Point(int(call), action))
    if UNRELIABLE in os.environ:
        make_unreliable(FolderStore, float(os.environ[UNRELIABLE]), lambda: note("faults"))
    del sys.argv[1]
    run_command_line()
