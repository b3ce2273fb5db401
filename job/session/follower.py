"""Ranks other than 0: receive plan and state from rank 0, then train.

They pull the data from the bucket themselves; everything else comes from rank 0, so that they cannot differ from it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from job.session.callbacks import FollowerCallbacks
from job.session.context import SessionContext
from job.session.watchdog import NO_STEP

if TYPE_CHECKING:
    from job.training.trainer import Plan


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file to send to another process."""

    name: str
    data: bytes

    @classmethod
    def read(cls, path: Path) -> "FileContent":
        """Read a file of this machine."""
        return cls(path.name, path.read_bytes())

    def write(self, folder: Path) -> Path:
        """Write the file into a folder of this machine, and return its path."""
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_bytes(self.data)
        return folder / self.name


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """Rank 0's plan, from which the other ranks set up the same training."""

    plan: "Plan"
    dataset: dict[str, Any]
    weights: FileContent | None


@dataclass(frozen=True, slots=True)
class SharedState:
    """The checkpoint that training resumes from; no files if there is none."""

    files: tuple[FileContent, ...]
    reopen: bool


def follow(context: SessionContext) -> None:
    """Train together with rank 0: data from the bucket, everything else from rank 0."""
    group = context.group
    with context.in_folder(f"follower{group.rank}") as here:
        shared = cast("SharedPlan | None", group.broadcast(None))
        if shared is None:  # the run is finished
            return
        subject = f"process {group.rank + 1} of {group.size}"
        with group.local_zero_first():
            data = here.prepare_data(shared.dataset["name"], shared.dataset, subject)
        here.isolate_training()
        from job.training.loop import Training  # noqa: PLC0415 -- imports Ultralytics, which is isolated by now

        weights = shared.weights.write(here.folder / "start") if shared.weights else None
        (here.folder / "run").mkdir()
        training = Training(
            replace(shared.plan, data_yaml=data.yaml, folder=here.folder / "run", weights=weights, group=group)
        )
        state = group.broadcast(SharedState((), reopen=False))
        for file in state.files:
            file.write(here.folder / "restored")
        if state.files:
            training.restore(here.folder / "restored", reopen=state.reopen)
        with here.preemption.left_alone(), here.watchdog.watching(NO_STEP):
            training.run(FollowerCallbacks(here.preemption, group, here.watchdog))
