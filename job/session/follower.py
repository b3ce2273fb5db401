"""Ranks other than 0: receive plan and state from rank 0, then train.

They pull the data from the bucket themselves; everything else comes from rank 0, so that they cannot differ from it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from job.runs.records import PinnedDataset
from job.session.callbacks import FollowerCallbacks
from job.session.context import SessionContext
from job.session.watchdog import NO_STEP

if TYPE_CHECKING:
    from job.training.trainer import Plan

Files = dict[str, bytes]
"""Files to send to another process: contents by name."""


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """Rank 0's plan, from which the other ranks set up the same training."""

    plan: "Plan"
    dataset: PinnedDataset
    weights: Files


def follow(context: SessionContext) -> None:
    """Train together with rank 0, and tell it of a failure.

    Data comes from the bucket, everything else from rank 0.
    """
    group = context.group
    with group.failure_told(), context.in_folder(f"follower{group.rank}") as here:
        here.isolate_training()  # a plan imports Ultralytics as it arrives
        shared = cast("SharedPlan | None", group.broadcast(None))
        if shared is None:  # the run is finished
            return
        with group.local_zero_first():
            data = here.prepare_data(shared.dataset.name, shared.dataset, group.subject)
        from job.training.loop import Training  # noqa: PLC0415 -- imports Ultralytics, which is isolated by now

        weights = next(iter(_write(shared.weights, here.folder / "start")), None)
        (here.folder / "run").mkdir()
        plan = replace(shared.plan, data_yaml=data.yaml, pixels=data.pixels, shapes=data.shapes)
        training = Training(replace(plan, folder=here.folder / "run", weights=weights, group=group))
        files, reopen = group.broadcast((Files(), False))  # of the checkpoint to resume from, if there is one
        _write(files, here.folder / "restored")
        if files:
            training.restore(here.folder / "restored", reopen=reopen)
        with here.preemption.deferred(), here.watchdog.watching(NO_STEP):
            training.run(FollowerCallbacks(here))


def _write(files: Files, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]
