"""Runs made of records, without training."""

from dataclasses import replace

from job.analysis.summary import RunSummary
from job.recipes.recipe import load_recipe
from job.runs.progress import EvaluationRecord
from job.runs.records import DatasetStatistics, FinalRecord, Lineage, RunRecord
from job.runs.run import Run
from job.training.files import EVALUATION
from tests.support.attempt_records import attempt_record

USERS_COURSE = (0.58, 0.62, 0.65, 0.67, 0.69, 0.70, 0.71, 0.72, 0.72, 0.71, 0.72)
"""F1 by epoch, the users' example of a run that reaches its target and then its plateau."""


FACTS = {
    "num_train_images": 1000,
    "num_val_images": 200,
    "batch": 16,
    "num_threads": 1,
    "max_det": 300,
    "device": "cpu",
}
"""Facts that a training decides during its set-up."""


def metrics(f1, precision=None, recall=None):
    """Return metrics with an F1, and a precision and recall that are the same if none are given."""
    precision, recall = precision or f1, recall or f1
    return {"f1": f1, "precision": precision, "recall": recall, "map50": f1, "map50_95": f1 / 2}


def recorded(
    recipe="base",
    *,
    run="zebra",
    profile="full",
    course=(0.58,),
    precision=None,
    recall=None,
    start="pretrained",
    val="v" * 64,
    num_val=200,
    epoch_s=90.0,
    seconds=None,
    usd_per_hour=None,
    reason="complete",
    finished_at="2026-11-23T12:00:00.000+00:00",
    machine="Linux x86_64, 8 cores",
    machine_type=None,
    dataset="wildlife",
    **train,
):
    """Return the summary of a finished run; further arguments are training arguments."""
    loaded = load_recipe(recipe, profile)
    arguments = {**loaded.train, "epochs": len(course), **train}
    before, after = metrics(0.3), metrics(max(course), precision, recall)
    record = RunRecord(
        run=run,
        created_at="2026-11-23T10:00:00.000+00:00",
        request={
            "recipe": recipe,
            "profile": profile,
            "dataset": dataset,
            "start": str(loaded.start),
            "model": None,
            "new_classes": False,
            "quarantine": False,
            "train": arguments,
        },
        recipe_digest="0" * 64,
        expect={name: [band.low, band.high] for name, band in loaded.expect.items()},
        start={"point": {"kind": start, "source": "weights/yolo11s.pt", "architecture": None, "run": None}},
        dataset={"name": dataset, "digest": "d" * 64, "set_aside": [], "val": val},
        facts=FACTS | {"num_val_images": num_val},
        environment={"cpu": "AVX2"},
        wandb_id="0" * 8,
    )
    final = {
        "finished_at": finished_at,
        "attempt": 1,
        "profile": profile,
        "reason": reason,
        "num_epochs": len(course),
        "best_epoch": course.index(max(course)) + 1,
        "train_s": epoch_s * len(course),
        "comparison": {
            "before": before,
            "after": after,
            "change": {name: after[name] - before[name] for name in before},
            "expected": record.expect,
            "reached": {},
        },
        "course": [{"epoch": number, **metrics(f1)} for number, f1 in enumerate(course, start=1)],
        "weights": {"best.pt": {"sha256": "b" * 64}},
    }
    attempt = attempt_record(
        {
            "attempt": 1,
            "claimed_at": record.created_at,
            "host": "savanna",
            "machine": machine,
            "price": {"usd_per_h": usd_per_hour, "machine_type": machine_type},
        },
        end={
            "reason": "finished",
            "ended_at": finished_at,
            "seconds": seconds or {"useful step": epoch_s * len(course)},
        },
    )
    return RunSummary(record=record, attempts=(attempt,), final=FinalRecord.model_validate(final))


def missing(summary, small, larger, *, side_px):
    """Return a run's summary with objects that it missed, below 16 px and above, in files of so many pixels.

    Args:
        summary: As `recorded` returns it.
        small: Missed objects from 8 to 16 px; as many are found.
        larger: Missed objects from 16 px on; as many are found.
        side_px: The longer side of the dataset's pictures.
    """
    counts = [(0, 8, 0), (8, 16, small), (16, None, larger)]
    sizes = [
        {"from_px": low, "to_px": high, "num_objects": 2 * num, "num_found": num, "num_false_alarms": 0}
        for low, high, num in counts
    ]
    statistics = {
        "imgsz": summary.train["imgsz"], "tiles": 0, "side_px": side_px, "num_objects": 100, "num_small": 41,
        "num_small_in_files": 3, "median_px": 18.0, "median_in_files_px": 48.0, "max_objects": 9,
    }  # fmt: skip
    dataset = summary.record.dataset.model_copy(update={"statistics": DatasetStatistics.model_validate(statistics)})
    evaluation = EvaluationRecord.model_validate(
        {
            "row": {}, "imgsz": summary.train["imgsz"], "iou": 0.5, "num_images": 200, "num_objects": 100,
            "operating_point": {}, "classes": [], "curves": {}, "sizes": sizes, "images": [], "num_images_left_out": 0,
        }
    )  # fmt: skip
    record = summary.record.model_copy(update={"dataset": dataset})
    return replace(summary, record=record, evaluation=evaluation)


def starting_from(record, point):
    """Return a run's record with other initial weights."""
    return record.model_copy(update={"start": Lineage.model_validate({"point": point})})


def put_recorded(store, summary):
    """Write the records of a run into a store."""
    run = Run(store, summary.run)
    run.create(summary.record)
    for attempt in summary.attempts:
        claim = run.claim(attempt.claim.model_dump(mode="json"))
        claim.end(attempt.end.reason, attempt.end.model_dump(mode="json"))
    if summary.final is not None:
        run.finish(summary.final.model_dump(mode="json"))
    if summary.evaluation is not None:
        run.write(EVALUATION, summary.evaluation)
    assert summary.record == run.record()
