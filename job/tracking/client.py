"""W&B's client library, confined: one run, its axis, and what it takes.

Guarantees that whatever it writes to disk lies in one folder, and that opening a run ends within a time that is known,
on the server or without it.
"""

import base64
import contextlib
import io
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from PIL import Image
from wandb.errors import UsageError

from job.report.examples import Picture, View
from job.runs.records import RunRecord
from job.runs.run import family_of
from job.tracking.transaction_log import rows

SERVER = "https://api.wandb.ai"

SERVER_S = 30.0
"""How long the server may take to open a run; W&B's own variable WANDB_INIT_TIMEOUT says otherwise."""

FLUSH_S = 1.0
"""What a kill may cost of the log on disk; the library's own choice is 15 s."""

AXIS = "epoch"

NO_EPOCH = -1


class ServerError(Exception):
    """The server did not take the run."""


class UnknownRunError(ServerError):
    """The server does not know the run."""


def confine(folder: Path) -> None:
    """Let the library write below a folder and nowhere else; call before anything else of it."""
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        place = folder / name.lower()
        place.mkdir(parents=True, exist_ok=True)
        os.environ[f"WANDB_{name}"] = str(place)
    os.environ["WANDB_SILENT"] = "true"


def why_offline() -> str:
    """Return why nothing can be sent from here, or nothing if there is a key; the server is not asked.

    ``wandb login`` writes keys to the file of netrc.
    """
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return f"WANDB_MODE is {mode}"
    if os.environ.get("WANDB_API_KEY"):
        return ""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None:
            return ""
    return "there is no key"


def require_taken() -> None:
    """Ask the server whether it takes the key; raises whatever the library raises if it does not."""
    wandb.Api(timeout=10).viewer  # noqa: B018 -- asks the server


class Curve:
    """One attempt's part of a run's curve."""

    def __init__(
        self, record: RunRecord, *, online: bool, resume: str = "allow", watched_pid: int | None = None
    ) -> None:
        """Open the run, by the id that it was given when it was created.

        Args:
            record: The run's record.
            online: Send to the server; else a log on disk is all.
            resume: ``must`` fails if the server does not know the run.
            watched_pid: The process whose use of the machine is recorded.

        Raises:
            UnknownRunError: If the server has to know the run and does not.
            ServerError: If it does not take it in time.
        """
        self.online = online
        settings = wandb.Settings(
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT") or SERVER_S),
            x_transaction_log_flush_interval=FLUSH_S,
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_save_requirements=False,
            x_disable_stats=watched_pid is None,
            x_stats_pid=watched_pid or os.getpid(),
        )
        try:
            self._run = wandb.init(
                mode="online" if online else "offline",
                id=record.wandb_id,
                resume=resume,  # type: ignore[arg-type]  # one of the words that it takes
                project=os.environ.get("WANDB_PROJECT") or family_of(record.run),
                name=record.run,
                settings=settings,
            )
        except wandb.Error as error:
            wandb.teardown()  # or the id counts as taken
            kind = UnknownRunError if resume == "must" and isinstance(error, UsageError) else ServerError
            raise kind(f"the server did not take the run, {' '.join(str(error).split())}") from error
        self._run.config.update(_config(record), allow_val_change=True)  # type: ignore[no-untyped-call]  # of the library
        self._run.define_metric(AXIS)
        self._run.define_metric("*", step_metric=AXIS)

    @property
    def log_file(self) -> Path:
        """What is written to disk, online or not."""
        return Path(self._run.settings.sync_file)

    @property
    def url(self) -> str | None:
        """Where the run is shown; nothing offline."""
        return self._run.url

    @property
    def epoch(self) -> int:
        """The last epoch that the server has; `NO_EPOCH` if it has none."""
        found = self._run.summary.get(AXIS)  # type: ignore[no-untyped-call]  # of the library
        return NO_EPOCH if found is None else int(found)

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row, which has its epoch."""
        self._run.log(dict(row))

    def holds(self, epoch: int) -> bool:
        """Whether the log on disk holds an epoch by now."""
        return any(row[AXIS] == epoch for row in rows(self.log_file))

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Say what came of the run."""
        self._run.summary.update(dict(summary))

    def show(self, pictures: Sequence[Picture]) -> None:
        """Add validation images with the boxes before and after, as a table."""
        table = wandb.Table(columns=["image", "before", "after"])
        for picture in pictures:
            image = Image.open(io.BytesIO(base64.b64decode(picture.data.partition(",")[2])), formats=("JPEG",))
            table.add_data(picture.image, *(_image(image, view) for view in (picture.before, picture.after)))
        self._run.log({"predictions": table, AXIS: self.epoch})

    def keep(self, path: Path, about: Mapping[str, Any]) -> None:
        """Keep weights as an artifact of the run."""
        artifact = wandb.Artifact(f"{self._run.name}-best", type="model", metadata=dict(about))
        artifact.add_file(str(path), name="best.pt")
        self._run.log_artifact(artifact)

    def leave(self) -> None:
        """Say that the machine is being taken; whoever comes next goes on."""
        self._run.mark_preempting()

    def close(self, exit_code: int = 0) -> None:
        """Finish, after everything is sent."""
        self._run.finish(exit_code=exit_code)


def _config(record: RunRecord) -> dict[str, Any]:
    """Return what the run is: what was asked for, where it comes from, what was decided."""
    return {
        "recipe": record.request["recipe"],
        "recipe_digest": record.recipe_digest,
        "train": record.request["train"],
        "start": record.start.model_dump(),
        "dataset": record.dataset.model_dump(),
        "facts": record.facts.model_dump(exclude_unset=True),
        "environment": record.environment,
    }


KINDS = {0: "missed", 1: "right", 2: "wrong"}


def _image(image: Image.Image, view: View | None) -> wandb.Image | None:
    """Return an image with the boxes of one model; nothing if it was not kept."""
    if view is None:
        return None
    numbers = {kind: number for number, kind in KINDS.items()}
    boxes = [
        {
            "position": {
                "minX": box.left,
                "minY": box.top,
                "maxX": box.left + box.width,
                "maxY": box.top + box.height,
            },
            "domain": "pixel",
            "class_id": numbers[box.kind],
            "box_caption": box.label,
        }
        for box in view.boxes
    ]
    return wandb.Image(image, boxes={"boxes": {"box_data": boxes, "class_labels": KINDS}})
