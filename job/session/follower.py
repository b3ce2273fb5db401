"""Training in several processes: what the first one gives the others, and their part of the story.

They pull the data from the bucket themselves; all else comes from the first, so that they cannot differ from it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from job.datasets.prepare import prepare_data
from job.goodput import PhaseTimer
from job.runs.request import TrainRequest
from job.session.callbacks import FollowerCallbacks
from job.session.doctor import require_fit
from job.session.preemption import PreemptionWatcher
from job.session.watchdog import NO_STEP, Watchdog
from job.storage import workdir
from job.storage.object_store import Store
from job.storage.workdir import attempt_folder
from job.training.distributed import ProcessGroup

if TYPE_CHECKING:
    from job.training.trainer import Plan


@dataclass(frozen=True, slots=True)
class File:
    """A file on its way to another process."""

    name: str
    data: bytes

    @classmethod
    def read(cls, path: Path) -> "File":
        """Take a file from this machine."""
        return cls(path.name, path.read_bytes())

    def place(self, folder: Path) -> Path:
        """Put it into a folder of that machine; return where it is."""
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_bytes(self.data)
        return folder / self.name


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """What the other processes need of the first one to set up the same training."""

    plan: "Plan"
    dataset: dict[str, Any]
    weights: File | None


@dataclass(frozen=True, slots=True)
class SharedState:
    """The checkpoint that training goes on from; no files if there is none."""

    files: tuple[File, ...]
    reopen: bool


def follow(
    store: Store,
    order: TrainRequest,
    timer: PhaseTimer,
    preemption: PreemptionWatcher,
    *,
    group: ProcessGroup,
    watchdog: Watchdog,
) -> None:
    """Train together with the first process: the data from the bucket, all else from there."""
    from job.training.isolation import confine_ultralytics  # noqa: PLC0415 -- torch is heavy, checks came first

    workdir.require_writable(order.workdir)
    require_fit(order.workdir, order.device)
    with attempt_folder(order.workdir, f"follower{group.rank}") as folder:
        shared = cast("SharedPlan | None", group.broadcast(None))
        if shared is None:  # the run is finished
            return
        pinned, subject = shared.dataset, f"process {group.rank + 1} of {group.size}"
        data = prepare_data(
            *(store, pinned["name"], order.workdir, folder / "data.yaml", timer),
            quarantine=order.quarantine,
            single_class=bool(order.recipe.train.get("single_cls")),
            pinned=pinned,
            subject=subject,
        )
        confine_ultralytics(order.workdir / "ultralytics")
        from job.training.loop import Training  # noqa: PLC0415 -- reads what the line above has set

        weights = shared.weights.place(folder / "start") if shared.weights else None
        (folder / "run").mkdir()
        training = Training(
            replace(shared.plan, data_yaml=data.yaml, folder=folder / "run", weights=weights, group=group)
        )
        state = group.broadcast(SharedState((), reopen=False))
        for file in state.files:
            file.place(folder / "restored")
        if state.files:
            training.restore(folder / "restored", reopen=state.reopen)
        with preemption.left_alone(), watchdog.watching(NO_STEP):
            training.run(FollowerCallbacks(preemption, group, watchdog))
