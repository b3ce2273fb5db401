"""Confidence threshold: given, the run's operating point, or the one that reaches a recall on the validation set."""

import statistics
from dataclasses import dataclass
from itertools import takewhile

from job.analysis.metrics import LABELS
from job.errors import RunConflictError, UsageError
from job.text import percent
from job.training.evaluation_record import LEAST_CONFIDENCE, Evaluation


@dataclass(frozen=True, slots=True)
class Threshold:
    """A confidence, and the metrics of the validation set there if they are known."""

    confidence: float
    metrics: dict[str, float]
    """``precision``, ``recall`` and ``f1``, or nothing."""

    def __str__(self) -> str:
        figures = ", ".join(f"{LABELS[name]} {percent(value)}" for name, value in self.metrics.items())
        return f"{self.confidence:g}" + (f" (on the validation set: {figures})" if figures else "")


def choose_threshold(
    run: str, evaluation: Evaluation | None, conf: float | None = None, recall: float | None = None
) -> Threshold:
    """Return the threshold of a prediction.

    Args:
        run: The run's name, for messages.
        evaluation: Of the run's best weights, if there is one.
        conf: The confidence itself.
        recall: The recall to reach: the highest confidence of the curve up to which recall is at least that.

    Raises:
        UsageError: If no confidence has that recall.
        RunConflictError: If the run has no evaluation, or found nothing in it.
    """
    curves = evaluation.curves if evaluation else {}
    if conf is not None:
        return Threshold(conf, metrics_at(evaluation, conf))
    if evaluation is None or not curves:
        what = "found nothing on the validation set" if evaluation else "has no evaluation of its best weights"
        raise RunConflictError(f"run {run}: {what}, so it has no threshold of its own; pass --conf")
    if recall is None:
        confidence = _own(evaluation)
        return Threshold(confidence, metrics_at(evaluation, confidence))
    reached = list(takewhile(lambda point: point[1] >= recall, zip(*_points(curves), strict=True)))
    if not reached:
        raise UsageError(
            f"--recall: run {run} reaches {percent(max(_points(curves)[1]))} at most on the validation set, got "
            f"{percent(recall)}; pass less, or --conf"
        )
    confidence = reached[-1][0]
    return Threshold(confidence, metrics_at(evaluation, confidence))


def metrics_at(evaluation: Evaluation | None, confidence: float) -> dict[str, float]:
    """Return precision, recall and their F1 of the validation set at a confidence, as far as they are known.

    They are those of the operating point, or of the point of the curves that is nearest. The mean F1 of the classes,
    which both have as well, is another figure than the F1 of a run's result.
    """
    if evaluation is None or not evaluation.curves:
        return {}
    is_own = confidence == _own(evaluation)
    point = evaluation.operating_point if is_own else evaluation.at(confidence)
    known: dict[str, float] = {name: point[name] for name in ("precision", "recall") if name in point}
    both = known.keys() == {"precision", "recall"}
    return known | {"f1": statistics.harmonic_mean(known.values())} if both else known


def _own(evaluation: Evaluation) -> float:
    """Return the confidence of the operating point."""
    return max(evaluation.operating_point["confidence"], LEAST_CONFIDENCE)


def _points(curves: dict[str, list[float]]) -> tuple[list[float], list[float]]:
    """Return confidences from `LEAST_CONFIDENCE` on and the recall at each."""
    return [max(confidence, LEAST_CONFIDENCE) for confidence in curves["confidence"]], curves["recall"]
