"""Evaluations of a run on a split, as `job evaluate` records them."""

from job.runs.evaluation import SplitEvaluation, evaluation_name
from job.runs.records import now

SHARES = ("precision", "recall", "f1", "map50", "map50_95")

ABOUT_HALF = (0.5, 0.45, 0.55)


def record_evaluation(run, split="test", names=("zebra",), *, pictures=(), share=ABOUT_HALF, **changes):
    """Write an evaluation of a finished run's best weights, and return it."""
    score = {"num_objects": 30, "num_found": 20, "num_false_alarms": 12}
    score |= dict.fromkeys(SHARES, share)
    sizes = [{**score, "from_px": low, "to_px": high} for low, high in ((0, 8), (8, 16), (16, None))]
    counted = dict.fromkeys(("count_bias", "count_mae"), (-0.25, -0.5, 0.1))
    content = {
        "run": run.name,
        "evaluated_at": now(),
        "weights": run.final().weights["best.pt"].sha256,
        "split": split,
        "digest": "d" * 64,
        "rule": "best F1",
        "confidence": 0.31,
        "imgsz": 640,
        "tiles": None,
        "overlap": 0.0,
        "max_det": 300,
        "stock": {"precision": 0.6, "recall": 0.5, "map50": 0.5, "map50_95": 0.3},
        "num_empty": 1,
        "total": score,
        **counted,
        "false_alarms_per_empty": (None, None, None),
        "classes": [{**score, **counted, "name": name, "confidence": 0.31, "is_own": True} for name in names],
        "sizes": sizes,
        "sizes_at_imgsz": sizes,
        "pictures": pictures,
    }
    record = SplitEvaluation.model_validate(content | changes)
    run.write(evaluation_name(split), record, overwrite=True)
    return record
