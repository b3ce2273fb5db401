"""``job evaluate``: a run's score on pictures that chose nothing, with intervals."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from job.cli.command import command
from job.cli.options import DeviceOption, JsonOption, RunOptions, Share, TilesOption
from job.cli.runs import require_finished
from job.log import one_line
from job.runs.evaluation import IntervalEstimate, Score, SizeScore, SplitEvaluation
from job.runs.request import WorkersOption
from job.text import counted, labelled, shortened, table

NUM_SHOWN, MAX_NAME = 6, 15

CHOSEN_HERE = (
    "threshold and score come from the same pictures, so the score is too good; a test split, `test:` in data.yaml, "
    "gives one that can be defended"
)


class EvaluateOptions(RunOptions, JsonOption, TilesOption, DeviceOption, WorkersOption):
    """Flags of ``job evaluate``."""

    split: Literal["test", "val"] | None = Field(
        None, description="The pictures that are scored: test, or val; test if left out, unless there is none."
    )
    recall: Share | None = Field(
        None,
        description="Takes the highest thresholds with this recall on val, such as 0.9; those of the best F1 if left "
        "out.",
    )
    batch: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Pictures that the model sees at once; as in validation if left out."
    )


@command(EvaluateOptions, "job evaluate zebra --split test --recall 0.9 --bucket gs://my-bucket")
def evaluate(options: EvaluateOptions) -> None:
    """Score a finished run, with intervals.

    The thresholds are chosen on val: one for each class with 50 or more objects there, and a common one for the rest.
    The score is of the test split if there is one. The record is kept in the bucket; `job compare` pairs runs by it.
    """
    run, record, final = require_finished(options.store(), options.run)
    options.require_device()
    from job.session.evaluate import EvaluationRequest
    from job.session.evaluate import evaluate as evaluate_run

    request = EvaluationRequest(
        split=options.split,
        recall=options.recall,
        tiles=options.tiles_for(record),
        overlap=record.train["tile_overlap"],
        batch=options.batch or 2 * record.facts.batch,  # as validation in training does
        device=options.device,
        workers=options.workers,
        workdir=options.workdir,
    )
    evaluation = evaluate_run(run, record, final, request)
    options.print(evaluation.model_dump(mode="json"), format_evaluation(evaluation))


def format_evaluation(evaluation: SplitEvaluation) -> list[str]:
    """Return an evaluation as lines for a terminal."""
    total = evaluation.total
    tiles = f", and tiles of {evaluation.tiles} px" if evaluation.tiles else ""
    pictures, objects = counted(len(evaluation.pictures), "picture"), counted(total.num_objects, "object")
    scored = f"{pictures}, {evaluation.num_empty} of them empty, {objects}"
    lines = [
        *labelled("run", f"{evaluation.run}, at {evaluation.imgsz} px{tiles}"),
        *labelled("scored on", f"{evaluation.split}: {scored}"),
        *labelled("threshold", f"of the {evaluation.rule} on val: {_thresholds(evaluation)}"),
    ]
    if evaluation.is_chosen_here:
        lines += labelled("note", CHOSEN_HERE)
    shares = {
        "precision": total.precision,
        "recall": total.recall,
        "F1": total.f1,
        "mAP50": total.map50,
        "mAP50-95": total.map50_95 or IntervalEstimate(None, None, None),
    }
    numbers = {
        "count, bias": evaluation.count_bias,
        "count, error": evaluation.count_mae,
        "false alarms": evaluation.false_alarms_per_empty,
    }
    rows = [("", "", "95 % interval", "")]
    rows += [(name, *_parts(each, ".1f", 100), "%") for name, each in shares.items()]
    rows += [
        (name, *_parts(each, "+.2f" if name == "count, bias" else ".2f"), f"a picture{' without object' * is_empty}")
        for is_empty, (name, each) in zip((False, False, True), numbers.items(), strict=True)
    ]
    lines += ["", *table(rows, right=(1,))]
    if len(evaluation.classes) > 1:
        lines += ["", *_by("class", {one_line(each.name): each for each in evaluation.classes})]
    for heading, sizes in (("px in file", evaluation.sizes), (f"at {evaluation.imgsz}", evaluation.sizes_at_imgsz)):
        lines += ["", *_by(heading, {_size(each): each for each in sizes if each.num_objects})]
    return lines


def _thresholds(evaluation: SplitEvaluation) -> str:
    own = [each for each in evaluation.classes if each.is_own]
    if len(own) == len(evaluation.classes) == 1:
        return f"{own[0].confidence:g}"
    named = [f"{one_line(each.name)} {each.confidence:g}" for each in own]
    others = f"{'the others ' if own else ''}{evaluation.confidence:g}"
    return ", ".join([*shortened(named, NUM_SHOWN), *([others] if len(own) < len(evaluation.classes) else [])])


def _by(heading: str, scores: Mapping[str, Score]) -> list[str]:
    rows: list[tuple[str, ...]] = [(heading, "objects", "precision", "recall", "F1", "mAP50")]
    for name, each in scores.items():
        label = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
        cells = (" ".join(_parts(share, ".0f", 100)) for share in (each.precision, each.recall, each.f1))
        rows.append((label, str(each.num_objects), *cells, _parts(each.map50, ".0f", 100)[0]))
    return table(rows, right=(1, 2, 3, 4, 5))


def _size(score: SizeScore) -> str:
    return f"{score.from_px}-{score.to_px}" if score.to_px else f"{score.from_px} or more"


def _parts(figure: IntervalEstimate, format_: str, unit: float = 1) -> tuple[str, str]:
    """Return a figure and its interval as text."""
    if figure.value is None:
        return "none", ""
    low, high = figure.low, figure.high
    interval = "" if low is None or high is None else f"[{unit * low:{format_}}, {unit * high:{format_}}]"
    return f"{unit * figure.value:{format_}}", interval
