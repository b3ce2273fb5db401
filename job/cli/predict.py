"""``job predict``: a run's model on a folder, on files, or on a prefix of a bucket."""

import logging
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from job.cli.command import command
from job.cli.options import DeviceOption, JsonOption, RunOptions, Share, TilesOption
from job.cli.runs import require_finished
from job.errors import MachineError, UsageError
from job.log import one_line
from job.prediction.records import PredictionFinal, PredictionRequest
from job.prediction.source import Source, open_source
from job.prediction.threshold import Threshold, choose_threshold
from job.recipes.arguments import MAX_IMGSZ, MIN_IMGSZ, validation_tiles
from job.runs.flags import Problem, Seconds
from job.runs.progress import EvaluationRecord
from job.runs.records import FinalRecord, RunRecord
from job.runs.run import Run
from job.storage.object_store import Store
from job.storage.open_store import open_output
from job.storage.paths import expanded
from job.text import counted, shortened, table
from job.training.files import BEST, EVALUATION

log = logging.getLogger(__name__)

NUM_SHOWN = 10

Confidence = Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1")]
Pixels = Annotated[int, Field(ge=MIN_IMGSZ, le=MAX_IMGSZ)]


class PredictOptions(RunOptions, JsonOption, TilesOption, DeviceOption):
    """Flags of ``job predict``."""

    positional = ("run", "source")

    source: tuple[str, ...] = Field(description="A folder with its folders, files, or gs://BUCKET/PREFIX.")
    out: str = Field(description="A folder, or gs://BUCKET/PREFIX, for the results.")
    conf: Confidence | None = Field(
        None, description="The least confidence of a detection; the run's own threshold if left out."
    )
    recall: Share | None = Field(
        None, description="Takes the highest threshold with this recall on the validation set, such as 0.9."
    )
    overlap: Annotated[float, Field(ge=0, le=0.9)] | None = Field(
        None, description="Share of a tile that the next one shows again; as in training, or 0.2, if left out."
    )
    imgsz: Pixels | None = Field(None, description="Pixels of the longer side in the model; as trained if left out.")
    iou: Share | None = Field(None, description="Overlap above which two boxes are one; as trained if left out.")
    max_det: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Detections of a picture, at most; as in validation if left out."
    )
    batch: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="Pictures that the model sees at once.")
    shard: Annotated[int, Field(ge=1, le=100_000)] = Field(50, description="Pictures that are committed together.")
    draw: bool = Field(default=False, description="Also write pictures with boxes.")
    hang_after_s: Seconds = Field(
        1800.0,
        alias="hang_after",
        description="Seconds without a searched picture after which it ends with exit 75; 0 waits for ever.",
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if self.conf is not None and self.recall is not None:
            raise Problem(UsageError("--conf: contradicts --recall; pass one of them"))
        return self


@command(PredictOptions, "job predict zebra flight-7 --out found --recall 0.9 --bucket gs://my-bucket")
def predict(options: PredictOptions) -> None:
    """Find objects in pictures with the best weights of a finished run.

    Writes counts.csv, detections.csv, detections.json, which Timelapse reads, and report.html. The same command goes
    on where it was killed, and several machines may share one --out.
    """
    store = options.store()
    run, record, final = require_finished(store, options.run)
    source = open_source(options.source)
    threshold, request = _resolve(options, run, record, final, source)
    options.require_device()
    out = _open_out(options.out, source)
    log.info("threshold %s; %s in %s", threshold, counted(len(source.pictures), "picture"), source.uri)
    if source.num_others:
        log.warning("source %s: left out, since their names are not of pictures: %d", source.uri, source.num_others)
    try:
        from job.prediction.predict import Prediction
        from job.prediction.predict import predict as run_prediction

        prediction = Prediction(
            request=request,
            run=run,
            source=source,
            out=out,
            device=options.device,
            workdir=options.workdir,
            hang_after_s=options.hang_after_s,
            metrics=threshold.metrics,
        )
        done, already = run_prediction(prediction)
    except ImportError as error:
        raise MachineError(f"predict: the package {error.name} is missing; install it, or run `make env`") from error
    if already:
        log.info("prediction in %s was finished before; for another one, choose another --out", out.uri)
    content = {"out": out.uri, "request": request.model_dump(mode="json"), **done.model_dump(mode="json")}
    options.print(content, _format(out, request, done))


def _resolve(
    options: PredictOptions, run: Run, record: RunRecord, final: FinalRecord, source: Source
) -> tuple[Threshold, PredictionRequest]:
    """Return the threshold, and the request with every value of the run filled in.

    The threshold has metrics only if the pictures are searched as those of the validation set were.

    Raises:
        UsageError: If no threshold has the recall, or there is an overlap of no tiles.
        RunConflictError: If the run has no threshold of its own, and none is given.
    """
    train, evaluation = record.train, run.read(EvaluationRecord, EVALUATION)
    tiles = options.tiles_for(record)
    if options.overlap is not None and not tiles:
        raise UsageError(f"--overlap: there are no tiles, got {options.overlap:g}; pass --tiles as well")
    threshold = choose_threshold(run.name, evaluation, options.conf, options.recall)
    request = PredictionRequest(
        run=run.name,
        weights=final.weights[BEST].sha256,
        source=source.digest,
        num_pictures=len(source.pictures),
        conf=threshold.confidence,
        iou=options.iou or train["iou"],
        imgsz=options.imgsz or train["imgsz"],
        max_det=options.max_det or record.facts.max_det,
        only=record.classes,
        tiles=tiles,
        overlap=(train["tile_overlap"] if options.overlap is None else options.overlap) if tiles else 0.0,
        batch=options.batch,
        shard=options.shard,
        draw=options.draw,
    )
    searched = (request.imgsz, request.iou, request.max_det, request.tiles, request.overlap)
    if searched != (train["imgsz"], train["iou"], record.facts.max_det, *validation_tiles(train)):
        threshold = replace(threshold, metrics={})
    return threshold, request


def _open_out(location: str, source: Source) -> Store:
    """Open the place of the results; a folder is made.

    Raises:
        UsageError: If it lies in the source, whose pictures it would add to.
    """
    if source.contains(location.rstrip("/") if "://" in location else str(expanded(location).resolve())):
        raise UsageError(f"--out: lies in the source {source.uri}, got {location}; choose a place beside it")
    return open_output(location)


def _format(out: Store, request: PredictionRequest, done: PredictionFinal) -> list[str]:
    rows = [("class", "objects", "pictures")]
    rows += [(one_line(name), str(total), str(done.num_with_objects[name])) for name, total in done.totals.items()]
    lines = [*table(rows, right={1, 2}), "", f"{counted(done.num_pictures, 'picture')} at confidence {request.conf:g}"]
    if done.num_unreadable:
        listed = [f"  {one_line(name)}: {one_line(why)}" for name, why in done.unreadable.items()]
        lines += [f"{done.num_unreadable} of them cannot be read:", *shortened(listed, NUM_SHOWN)]
    if done.num_full:
        lines.append(
            f"{done.num_full} of them with {counted(request.max_det, 'detection')}, which is the limit: see --max-det"
        )
    return [*lines, "", *(f"{out.uri}/{name}" for name in done.files)]
