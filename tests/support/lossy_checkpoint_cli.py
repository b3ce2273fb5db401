"""The command line with checkpoints that lack one source of state: ``WHAT words ...``.

Every step is committed before the next. A run of `HELD_RUN` stays, once each, at the steps of `HELD_AT` until it is
killed, so that the last checkpoint before the kill is the same however fast the machine is.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from job.cli.app import main
from job.session.callbacks import TRACE
from job.training import isolation
from tests.support.synchronous_commits import commit_at_once

HELD_RUN, HELD_AT = "killed", ((1, 4), (3, 3))
"""Epoch and batch, of six: the steps before are within an epoch, with gradients that wait for the optimizer."""

FITNESS = {1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2}
"""By epoch: with a patience of 2 training ends after epoch 3, unless the first epoch is forgotten."""


def forget_weights(state):
    """Keep the EMA in place of the live weights, as Ultralytics does."""
    state["model"] = state["ema"]


def forget_moments(state):
    """Keep an optimizer that has seen nothing."""
    for entry in state["optimizer"]["state"].values():
        for name in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
            if entry.get(name) is not None:
                entry[name].zero_()


def forget_gradients(state):
    """Keep no gradient that waits for a step, as Ultralytics does."""
    state["gradients"] = {}


def forget_phase(state):
    """Keep nothing of when the optimizer last stepped, as Ultralytics does."""
    state["progress"]["last_step"] = -1


def forget_stopper(state):
    """Keep nothing of the best epoch."""
    state["stopper"] = {"best_fitness": 0.0, "best_epoch": 0, "possible_stop": False}


def forget_best(state):
    """Keep nothing of the best fitness, so that a worse epoch becomes the best."""
    state["best_fitness"] = 0.0


def forget_losses(state):
    """Keep no mean of the losses of an epoch that is under way."""
    mean = state["losses"]["mean"]
    state["losses"]["mean"] = mean and {name: value * 0 for name, value in mean.items()}


def nothing(_state):
    """Keep everything."""


def draw_from_the_process():
    """Draw from one stream that starts anew with each process, as Ultralytics does."""
    from job.training import dataset, rng  # noqa: PLC0415 -- Ultralytics is confined first

    stream = random.Random(0)  # noqa: S311  # not for secrets
    dataset.start_streams = lambda *_key: rng.start_streams(stream.random())


def count_epochs_by_a_list():
    """Let the fitness follow a list, since that of a tiny training is 0 throughout."""
    from job.training.trainer import Trainer  # noqa: PLC0415 -- not before Ultralytics is confined

    original = Trainer.validate

    def validate(trainer):
        best = trainer.best_fitness or 0.0
        metrics, _ = original(trainer)
        fitness = FITNESS[trainer.epoch + 1]
        trainer.best_fitness = max(best, fitness)
        return metrics, fitness

    Trainer.validate = validate


def stay_if_held(progress):
    """Wait to be killed if this is a step to stay at, for the first time."""
    place, trace = (progress.epoch + 1, progress.batch), Path(os.environ[TRACE])
    if place in HELD_AT and trace.stem == HELD_RUN:
        steps = [json.loads(line) for line in trace.read_text().splitlines()]
        while sum((step["epoch"], step["batch"]) == place for step in steps) == 1:
            time.sleep(1)


FORGET = {
    "nothing": nothing,
    "weights": forget_weights,
    "moments": forget_moments,
    "gradients": forget_gradients,
    "phase": forget_phase,
    "stopper": forget_stopper,
    "best": forget_best,
    "losses": forget_losses,
    "keys": nothing,
}


def arm(what):
    """Replace the function that takes a state."""
    from job.training import loop  # noqa: PLC0415 -- Ultralytics is confined first

    original = loop.capture

    def capture(trainer, progress, **options):
        stay_if_held(progress)
        state, copying = original(trainer, progress, **options)
        copying.wait()
        if progress.phase == "training":  # what is compared at the end is what came of it
            FORGET[what](state)
        return state, copying

    loop.capture = capture
    commit_at_once()
    count_epochs_by_a_list()
    if what == "keys":
        draw_from_the_process()


if __name__ == "__main__":
    confine = isolation.isolate_ultralytics

    def confined(folder):
        """Arm as soon as Ultralytics may be imported."""
        confine(folder)
        arm(sys.argv[1])

    isolation.isolate_ultralytics = confined
    sys.exit(main(sys.argv[2:]))
