"""Prediction with a run's model, as durable as a training: from the request to the final files.

Guarantees that the same command starts a prediction, goes on with it, or says that it is finished; that each picture
counts once; and that the files are the same bytes however often it was killed. Machines share the shards of one
prediction without talking to each other: a shard is a create-only put, and the first one stands.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from job.datasets.image import quiet_decoder, read_picture
from job.errors import (
    DataError,
    ObjectNotFoundError,
    PreconditionError,
    PreemptionError,
    RunConflictError,
    UnreadableRecordError,
)
from job.log import Progress, one_line
from job.prediction.drawing import draw_boxes
from job.prediction.output import TABLES, write_tables
from job.prediction.page import PAGE, render, show_doubtful
from job.prediction.records import (
    FINAL,
    REQUEST,
    SHARDS,
    PictureResult,
    PredictionFinal,
    PredictionRequest,
    ShardRecord,
    shard_key,
)
from job.prediction.source import Picture, Source
from job.runs.lineage import fetch_best
from job.session import environment
from job.session.preemption import PreemptionWatcher
from job.session.watchdog import NO_BYTE, Watchdog
from job.storage.checksums import sha256_of
from job.storage.keys import is_key
from job.storage.object_store import Store
from job.storage.workdir import attempt_folder
from job.training.evaluation_record import Detection
from job.training.files import BEST

if TYPE_CHECKING:
    from job.runs.run import Run
    from job.training.detector import Detector

log = logging.getLogger(__name__)

Pixels = np.ndarray | DataError
"""A picture ``(h, w, c)``, BGR and uint8, or the reason why it cannot be read."""

Loaded = tuple[Picture, Pixels]

DRAWN = "drawn/"

FILES = (*TABLES, PAGE)
"""The final files, in the order in which they are put."""

NO_PICTURE = "prediction: no picture was searched"
"""Subject of the watchdog's message."""

MAX_NAME_BYTES = 255
"""Limit of file systems for a part of a path."""

PX_DIGITS, CONFIDENCE_DIGITS = 2, 5
"""Decimals of boxes and confidences: more than a picture shows, and fewer than kernels differ by."""

NUM_READERS = 4
"""Pictures that are fetched and decoded ahead of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A prediction on this machine."""

    request: PredictionRequest
    run: "Run"
    source: Source
    out: Store
    device: str
    """``cpu``, ``0`` and so on; empty chooses."""

    workdir: Path
    hang_after_s: float = 0.0
    """Seconds without a searched picture after which the process ends with exit 75; 0 waits for ever."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the validation set at the request's confidence, for the page."""


def predict(prediction: Prediction) -> tuple[PredictionFinal, bool]:
    """Predict to the end, and return its record, and whether it was finished before.

    Raises:
        RunConflictError: If the place of the results has another prediction, or files of others.
        JobError: If the weights, the source, the store or the device fail.
        PreemptionError: If this process was asked to stop; committed shards stay.
    """
    with PreemptionWatcher() as preemption, Watchdog(prediction.hang_after_s) as watchdog:
        try:
            preemption.watch()
            with watchdog.watching(NO_BYTE):
                if final := _start(prediction):
                    return final, True
                with attempt_folder(prediction.workdir, "predict") as folder:
                    return _Work(prediction, folder, preemption, watchdog).to_end(), False
        except PreemptionError:
            preemption.wait_for_termination()
            raise


def _start(prediction: Prediction) -> PredictionFinal | None:
    """Write the request unless it is there, and return the record of the end if there is one."""
    out, request = prediction.out, prediction.request
    try:
        found = PredictionRequest.read(REQUEST, out.read(REQUEST))
    except ObjectNotFoundError:
        listed = (stored.key for prefix in (SHARDS, DRAWN, FINAL, *FILES) for stored in out.list(prefix))
        if foreign := [key for key in listed if key in {FINAL, *FILES} or key.startswith((SHARDS, DRAWN))]:
            raise RunConflictError(
                f"{out.uri}: has {foreign[0]} already, of no prediction; choose another --out"
            ) from None
        with suppress(PreconditionError):
            out.put(REQUEST, request.to_json())
        found = PredictionRequest.read(REQUEST, out.read(REQUEST))
    found.require_equal(request, out.uri)
    try:
        return PredictionFinal.read(FINAL, out.read(FINAL))
    except ObjectNotFoundError:
        return None


class _Work:
    """What one process does of a prediction."""

    def __init__(self, prediction: Prediction, folder: Path, preemption: PreemptionWatcher, watchdog: Watchdog) -> None:
        self._prediction, self._folder, self._preemption, self._watchdog = prediction, folder, preemption, watchdog
        self._request, self._out = prediction.request, prediction.out

    def to_end(self) -> PredictionFinal:
        """Do the shards that are missing, then write the final files."""
        detector = self._load()
        preemption, request = self._preemption, self._request
        preemption.describe_uncommitted = lambda: "the pictures of one shard are not committed"
        with preemption.deferred(), quiet_decoder():
            with (
                self._watchdog.watching(NO_PICTURE),
                Progress("predicting", request.num_pictures, "picture") as progress,
            ):
                self._search(detector, progress)
            preemption.describe_uncommitted = str
            with preemption.interruptible():
                return self._finish(detector)

    def _search(self, detector: "Detector", progress: Progress) -> None:
        """Do the shards that are missing."""
        request, began, num_done = self._request, time.monotonic(), 0
        for number, num_left in self._open_shards():
            num_before = max(0, request.num_pictures - num_left * request.shard)
            num_done += self._do(number, detector, progress, num_before)
            log.info(
                "shard %d committed, %d of %d are left; %.3g pictures/s",
                *(number, num_left - 1, request.num_shards, num_done / (time.monotonic() - began)),
                extra={"shard": number, "shards_left": num_left - 1},
            )

    def _load(self) -> "Detector":
        """Fetch the run's best weights, and load them on the device."""
        from job.training.isolation import isolate_ultralytics  # noqa: PLC0415 -- only work needs torch

        isolate_ultralytics(self._folder / "ultralytics")
        from job.training.detector import DetectionSettings, Detector  # noqa: PLC0415 -- Ultralytics is confined first

        run, request = self._prediction.run, self._request
        weights = self._folder / BEST
        fetch_best(run, weights)
        settings = DetectionSettings(
            conf=request.conf,
            iou=request.iou,
            imgsz=request.imgsz,
            max_det=request.max_det,
            classes=request.only,
            tiles=request.tiles,
            overlap=request.overlap,
            batch=request.batch,
        )
        return Detector(weights, settings, self._prediction.device, environment.num_threads())

    def _open_shards(self) -> Iterator[tuple[int, int]]:
        """Yield the uncommitted shards in random order, each with the greatest number that are left with it."""
        while missing := self._missing():
            random.SystemRandom().shuffle(missing)  # machines seldom come to the same one at once
            for num_taken, number in enumerate(missing):
                if not self._is_committed(number):
                    yield number, len(missing) - num_taken

    def _missing(self) -> list[int]:
        """Return the numbers of the shards that are not committed."""
        present = {stored.key for stored in self._out.list(SHARDS)}
        return [number for number in range(1, self._request.num_shards + 1) if shard_key(number) not in present]

    def _is_committed(self, number: int) -> bool:
        try:
            self._out.stat(shard_key(number))
        except ObjectNotFoundError:
            return False
        return True

    def _do(self, number: int, detector: "Detector", progress: Progress, num_before: int) -> int:
        """Commit a shard, and return the number of its pictures; so many were done before."""
        pictures = self._prediction.source.pictures[(number - 1) * self._request.shard : number * self._request.shard]
        results: list[PictureResult] = []
        for batch in _batches(self._decoded(pictures, detector.num_channels), self._request.batch):
            results += self._detect(batch, detector)
            progress.to(num_before + len(results))
            self._watchdog.beat()
            self._watchdog.check()
            if notice := self._preemption.agree_on_notice(lambda urgency: urgency):
                raise notice
        with suppress(PreconditionError):  # another machine was first, perhaps with other last bits
            self._out.put(shard_key(number), ShardRecord(shard=number, pictures=results).to_json())
        return len(pictures)

    def _decoded(self, pictures: Sequence[Picture], num_channels: int) -> Iterator[Loaded]:
        """Yield pictures with their pixels, or with the reason why there are none."""

        def load(picture: Picture) -> Pixels:
            try:
                return read_picture(self._prediction.source.read(picture), picture.name, num_channels)
            except DataError as error:
                return error

        yield from zip(pictures, _ahead(load, pictures, NUM_READERS), strict=True)

    def _detect(self, batch: Sequence[Loaded], detector: "Detector") -> list[PictureResult]:
        found = iter(detector.detect([pixels for _, pixels in batch if not isinstance(pixels, DataError)]))
        results = []
        for picture, pixels in batch:
            if isinstance(pixels, DataError):
                log.warning("picture %s: %s; it is listed without counts", one_line(picture.name), pixels)
                results.append(PictureResult(picture=picture.name, failure=str(pixels)))
                continue
            height, width = pixels.shape[:2]
            detections = tuple(_rounded(box) for box in next(found))
            results.append(PictureResult(picture=picture.name, width=width, height=height, detections=detections))
            if self._request.draw:
                self._draw(picture.name, pixels, detections, detector.names)
        return results

    def _draw(self, name: str, pixels: np.ndarray, detections: Sequence[Detection], names: Sequence[str]) -> None:
        key = f"{DRAWN}{name}.jpg"
        if not is_key(key) or max(len(part.encode()) for part in key.split("/")) > MAX_NAME_BYTES:
            log.warning("picture %s: no object can have its name and .jpg behind it; it is not drawn", one_line(name))
            return
        with suppress(PreconditionError):  # drawn before
            self._out.put(key, draw_boxes(pixels, detections, names))

    def _finish(self, detector: "Detector") -> PredictionFinal:
        """Write the final files, and their record at last."""
        folder, request, names = self._folder / "files", self._request, detector.names
        folder.mkdir()
        summary = write_tables(folder, request, names, self._shards())
        pictures = list(show_doubtful(summary.doubtful, self._prediction.source, names, detector.num_channels))
        page = render(request, names, summary, pictures, self._prediction.metrics)
        (folder / PAGE).write_text(page, encoding="utf-8")
        final = PredictionFinal(
            num_pictures=request.num_pictures,
            num_unreadable=summary.num_unreadable,
            unreadable=summary.unreadable,
            totals={name: summary.totals[name] for name in names},
            num_with_objects={name: summary.num_with_objects[name] for name in names},
            num_full=summary.num_full,
            files={name: sha256_of(folder / name) for name in FILES},
        )
        for name in FILES:
            try:
                self._out.put(name, folder / name)
            except PreconditionError as error:
                raise RunConflictError(
                    f"{self._out.uri}/{name}: is not what the shards come to; move it away, and give the same command "
                    "again"
                ) from error
        with suppress(PreconditionError):
            self._out.put(FINAL, final.to_json())
        return final

    def _shards(self) -> Iterator[ShardRecord]:
        """Fetch all shards, and yield them in their order."""
        stored = [found for found in self._out.list(SHARDS, checksums=True) if found.key.endswith(".json")]
        folder = self._folder / "shards"
        self._out.get_many([(found, folder / Path(found.key).name) for found in stored])
        first = 0
        for number in range(1, self._request.num_shards + 1):
            key = shard_key(number)
            record = ShardRecord.read(f"{self._out.uri}/{key}", (folder / Path(key).name).read_bytes())
            expected = self._prediction.source.pictures[first : first + self._request.shard]
            if [result.picture for result in record.pictures] != [picture.name for picture in expected]:
                raise UnreadableRecordError(
                    f"{self._out.uri}/{key}: has other pictures than its shard; delete it, and give the same command "
                    "again"
                )
            first += self._request.shard
            yield record


def _rounded(box: Detection) -> Detection:
    category, confidence, *corners = box
    left, top, right, bottom = (round(value, PX_DIGITS) for value in corners)
    return Detection(category, round(confidence, CONFIDENCE_DIGITS), left, top, right, bottom)


def _ahead(load: Callable[[Picture], Pixels], pictures: Sequence[Picture], num_ahead: int) -> Iterator[Pixels]:
    """Yield the result for each picture in turn, the next ones loaded in threads meanwhile."""
    with ThreadPoolExecutor(num_ahead) as pool:
        left = iter(pictures)
        coming = deque(pool.submit(load, picture) for picture in islice(left, num_ahead))
        try:
            while coming:
                loaded = coming.popleft().result()
                coming.extend(pool.submit(load, picture) for picture in islice(left, 1))
                yield loaded
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(pictures: Iterator[Loaded], size: int) -> Iterator[list[Loaded]]:
    """Yield so many pictures at a time; which ones are together depends on nothing else."""
    while batch := list(islice(pictures, size)):
        yield batch
