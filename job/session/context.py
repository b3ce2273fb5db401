"""Session context: request, store, work folder and process group of one attempt.

Guarantees that the machine is fit before the work folder is used, and that the folder is removed afterwards.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from job.cloud.prices import price_here
from job.datasets.prepare import PreparedData, prepare_data
from job.goodput import PhaseTimer
from job.runs.records import PinnedDataset, Price
from job.runs.request import TrainRequest
from job.session.doctor import require_fit
from job.session.preemption import PreemptionWatcher
from job.session.watchdog import Watchdog
from job.storage import workdir
from job.storage.object_store import Store
from job.training import isolation
from job.training.distributed import ProcessGroup
from job.training.prepared_pixels import PIXELS, RESERVED_BYTES, make_room


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """One attempt on this machine."""

    store: Store
    request: TrainRequest
    preemption: PreemptionWatcher
    timer: PhaseTimer = field(default_factory=PhaseTimer)
    group: ProcessGroup = field(default_factory=ProcessGroup)
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(0))
    folder: Path = Path()
    """The work folder of this attempt; see `in_folder`."""

    price: Price = field(default_factory=Price)
    held: ExitStack = field(default_factory=ExitStack)
    """Keeps the pulled dataset from changes by other processes of this machine."""

    on_leave: Callable[[BaseException], None] = lambda _error: None
    """Called, from another thread, with the error by which the process leaves at once, when that is recorded."""

    @contextmanager
    def in_folder(self, owner: str) -> Iterator["SessionContext"]:
        """Make a work folder that is named after its owner; raises `MachineError` if the machine is unfit."""
        workdir.require_writable(self.request.workdir)
        make_room(self.request.workdir / PIXELS, RESERVED_BYTES)
        require_fit(self.request.workdir, self.request.device)
        with workdir.attempt_folder(self.request.workdir, owner) as folder, ExitStack() as held:
            isolation.import_torch_ahead()
            yield replace(self, folder=folder, price=price_here(), held=held)

    def prepare_data(
        self, name: str, pinned: PinnedDataset | None, subject: str, *, record_images: bool = True
    ) -> PreparedData:
        """Pull and check a dataset, as `prepare_data` does; a run that exists has it pinned in its record."""
        train = self.request.recipe.train
        return prepare_data(
            *(self.store, name, self.request.workdir, self.folder / "data.yaml", self.timer),
            held=self.held,
            quarantine=self.request.quarantine,
            single_class=bool(train.get("single_cls")),
            pinned=pinned.model_dump() if pinned else None,
            subject=subject,
            pulled_already=self.group.local_rank > 0,
            imgsz=train["imgsz"],
            tiles=train["tiles"],
            record_images=record_images,
        )

    def isolate_training(self) -> None:
        """Prepare this process for the first import of Ultralytics."""
        isolation.isolate_ultralytics(self.request.workdir / "ultralytics")

    def empty_folder(self, name: str) -> Path:
        """Make an empty folder within the work folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder
