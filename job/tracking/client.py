"""W&B's client library, confined: one W&B run, its axis, and what can be logged to it.

Guarantees that the library writes below one folder only, and that opening a run ends within `INIT_TIMEOUT_S`.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from PIL import Image

from job.report.examples import KINDS, Picture, View
from job.runs.records import RunRecord
from job.runs.run import family_of
from job.training.files import BEST

INIT_TIMEOUT_S = 30.0
"""How long the server may take to open a run, unless W&B's own variable WANDB_INIT_TIMEOUT is set."""

AXIS = "epoch"

NO_EPOCH = -1


class ServerError(Exception):
    """The server did not take the run."""


def confine(folder: Path) -> None:
    """Let the library write below a folder and nowhere else; call before anything else of it."""
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        path = folder / name.lower()
        path.mkdir(parents=True, exist_ok=True)
        os.environ[f"WANDB_{name}"] = str(path)
    os.environ["WANDB_SILENT"] = "true"


def require_taken() -> None:
    """Ask the server whether it takes the key; every error of the library is raised."""
    wandb.Api(timeout=10).viewer  # noqa: B018 -- asks the server


class WandbRun:
    """The W&B run of a run, opened on the server by the id in the run's record; created there if it is new.

    CPU, memory and GPU use of the process `watched_pid` are logged.

    Raises:
        ServerError: If the server does not take the run in time.
    """

    def __init__(self, record: RunRecord, *, watched_pid: int | None = None) -> None:
        settings = wandb.Settings(
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT") or INIT_TIMEOUT_S),
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
                mode="online",
                id=record.wandb_id,
                resume="allow",
                project=os.environ.get("WANDB_PROJECT") or family_of(record.run),
                name=record.run,
                settings=settings,
            )
        except wandb.Error as error:
            raise ServerError(f"the server did not take the run, {' '.join(str(error).split())}") from error
        self._run.config.update(_config(record), allow_val_change=True)
        self._run.define_metric(AXIS)
        self._run.define_metric("*", step_metric=AXIS)
        known = self._run.summary.get(AXIS)
        self.last_epoch = NO_EPOCH if known is None else int(known)
        """The last epoch that the server has or was sent."""

    @property
    def url(self) -> str | None:
        """The address of the run on the server."""
        return self._run.url

    def log(self, row: Mapping[str, Any]) -> None:
        """Log the row of an epoch."""
        self._run.log(dict(row))
        self.last_epoch = int(row[AXIS])

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set fields of the run's summary."""
        self._run.summary.update(dict(summary))

    def log_predictions(self, pictures: Sequence[Picture]) -> None:
        """Log validation images with the boxes before and after, as a table."""
        table = wandb.Table(columns=["image", "before", "after"])
        for picture in pictures:
            image = Image.open(io.BytesIO(base64.b64decode(picture.data.partition(",")[2])), formats=("JPEG",))
            table.add_data(picture.image, *(_image(image, view) for view in (picture.before, picture.after)))
        self._run.log({"predictions": table, AXIS: self.last_epoch})

    def log_model(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Log weights as a model artifact."""
        artifact = wandb.Artifact(f"{self._run.name}-best", type="model", metadata=dict(metadata))
        artifact.add_file(str(path), name=BEST)
        self._run.log_artifact(artifact)

    def mark_preempting(self) -> None:
        """Mark the run as being preempted; the next attempt resumes it."""
        self._run.mark_preempting()

    def finish(self) -> None:
        """Finish the run, after everything is sent."""
        self._run.finish()


def _config(record: RunRecord) -> dict[str, object]:
    """Return the run's request, lineage, data and environment, as W&B's config."""
    return {
        "recipe": record.request["recipe"],
        "recipe_digest": record.recipe_digest,
        "train": record.request["train"],
        "start": record.start.model_dump(),
        "dataset": record.dataset.model_dump(),
        "facts": record.facts.model_dump(exclude_unset=True),
        "environment": record.environment,
    }


def _image(image: Image.Image, view: View | None) -> wandb.Image | None:
    """Return an image with the boxes of one model; None if its evaluation did not keep the image."""
    if view is None:
        return None
    numbers = {kind: number for number, kind in enumerate(KINDS)}
    boxes = [
        {
            "position": {"minX": box.left, "minY": box.top, "maxX": box.left + box.width, "maxY": box.top + box.height},
            "domain": "pixel",
            "class_id": numbers[box.kind],
            "box_caption": box.label,
        }
        for box in view.boxes
    ]
    return wandb.Image(image, boxes={"boxes": {"box_data": boxes, "class_labels": dict(enumerate(KINDS.values()))}})
