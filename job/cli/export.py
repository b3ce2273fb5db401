"""``job export``: a run's model as an ONNX file that agrees with its weights."""

import logging
from typing import Annotated, Literal

from pydantic import Field

from job.cli.command import command
from job.cli.options import JsonOption, RunOptions
from job.cli.runs import require_finished
from job.export.destination import Destination
from job.export.records import Bounds, ExportRecord, ExportRequest
from job.prediction.threshold import Threshold, choose_threshold
from job.recipes.arguments import MAX_IMGSZ, MIN_IMGSZ
from job.runs.flags import WorkdirOption
from job.runs.progress import EvaluationRecord
from job.storage.workdir import attempt_folder
from job.text import counted, table
from job.training.files import BEST, EVALUATION

log = logging.getLogger(__name__)

USUAL_CONFIDENCE = 0.25
"""The default of ``yolo predict``, for a run without a threshold of its own."""

Bound = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a number from 0 on")]


class ExportOptions(RunOptions, JsonOption, WorkdirOption):
    """Flags of ``job export``."""

    format: Literal["onnx"] = Field("onnx", description="The format: onnx.")
    out: str | None = Field(
        None, description="A folder, or gs://BUCKET/PREFIX; runs/RUN/export/onnx-PX in the bucket if left out."
    )
    imgsz: Annotated[int, Field(ge=MIN_IMGSZ, le=MAX_IMGSZ)] | None = Field(
        None, description="Width and height of the input in pixels; as trained if left out."
    )
    pictures: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        100, description="Validation pictures that the check looks at, at most; spread evenly."
    )
    bound_confidence: Bound = Field(0.001, description="The greatest difference of a confidence that passes.")
    bound_px: Bound = Field(0.1, description="The same of a coordinate, in pixels of the input.")
    bound_metric: Bound = Field(0.005, description="The same of precision, recall, F1 and mAP50.")


@command(ExportOptions, "job export zebra --out exported --bucket gs://my-bucket")
def export_run(options: ExportOptions) -> None:
    """Export the best weights of a finished run, with a model card.

    Before anything is written, weights and exported file look at the validation pictures; an export that differs beyond
    the bounds ends with 70. Needs the packages that `make export` installs.

    Raises:
        RunConflictError: If there is no such run, it is not finished, or --out has another export.
        ParityError: If the file differs from the weights.
    """
    store = options.store()
    run, record, final = require_finished(store, options.run)
    request = ExportRequest(
        run=run.name,
        weights=final.weights[BEST].sha256,
        dataset=record.dataset.digest,
        format=options.format,
        imgsz=options.imgsz or record.train["imgsz"],
        pictures=options.pictures,
        bounds=Bounds(confidence=options.bound_confidence, px=options.bound_px, metric=options.bound_metric),
    )
    destination = (
        Destination.at(options.out) if options.out else Destination(store, run.key(f"export/onnx-{request.imgsz}/"))
    )
    if (done := destination.read(request)) is None:
        from job.export.export import Export, make_export

        evaluation = run.read(EvaluationRecord, EVALUATION)
        threshold = (
            choose_threshold(run.name, evaluation)
            if evaluation and evaluation.curves
            else Threshold(USUAL_CONFIDENCE, {})
        )
        with attempt_folder(options.workdir, "export") as folder:
            export = Export(
                request=request,
                run=run,
                record=record,
                final=final,
                evaluation=evaluation,
                threshold=threshold,
                workdir=options.workdir,
            )
            done = make_export(export, folder)
            destination.write(folder, done)
    else:
        log.info("the export in %s was finished before; for another one, choose another --out", destination.uri)
    options.print({"out": destination.uri, **done.model_dump(mode="json")}, _format(destination.uri, done))


def _format(where: str, done: ExportRecord) -> list[str]:
    parity = done.parity
    heading = ("greatest difference", BEST, "exported", "difference", "bound")
    boxes = f"{counted(parity.num_in_both, 'box', 'boxes')} in both, {parity.num_in_one} in one alone"
    return [
        f"{parity.num_pictures} of {counted(parity.num_of, 'validation picture')} at {done.px} px through both",
        "",
        *table([heading, *parity.rows(done.request.bounds)], right={1, 2, 3, 4}),
        "",
        f"{counted(parity.num_candidates, 'candidate')}; at {parity.at:g} {boxes}",
        *(f"{where}/{name}" for name in done.files),
    ]
