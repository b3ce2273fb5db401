"""The confidence threshold of a prediction."""

import pytest

from job.errors import RunConflictError, UsageError
from job.prediction.threshold import choose_threshold
from job.training.evaluation_record import Evaluation
from tests.support.run_records import evaluation


def evaluated(**changes):
    """Return an evaluation in which recall is 1 minus the confidence."""
    return Evaluation.model_validate(evaluation(0.7) | changes)


def test_without_a_word_it_is_the_operating_point():
    """The run's own threshold has precision and recall of its evaluation, and the F1 of the two."""
    found = choose_threshold("zebra", evaluated())
    assert (found.confidence, found.metrics) == (
        0.31,
        {"precision": 0.7, "recall": 0.6, "f1": pytest.approx(0.646, abs=0.001)},
    )
    assert str(found) == "0.31 (on the validation set: precision 70.0 %, recall 60.0 %, F1 64.6 %)"


def test_a_given_confidence_is_taken():
    """A confidence of the command line needs no evaluation, and has its metrics if there is one."""
    assert str(choose_threshold("zebra", None, conf=0.4)) == "0.4"
    assert choose_threshold("zebra", evaluated(), conf=0.4).metrics["recall"] == pytest.approx(0.6)


@pytest.mark.parametrize(("recall", "confidence"), [(0.9, 0.1), (0.5, 0.5), (1.0, 0.001)])
def test_a_recall_takes_the_highest_confidence_that_reaches_it(recall, confidence):
    """Of all confidences with that recall the highest has the fewest false alarms; none is below what is validated."""
    found = choose_threshold("zebra", evaluated(), recall=recall)
    assert found.confidence == pytest.approx(confidence)
    assert found.metrics["recall"] >= recall


def test_a_curve_that_rises_again_is_followed_to_its_first_fall():
    """A confidence counts only if recall was reached at every lower one as well."""
    curves = {"confidence": [0.0, 0.5, 1.0], "recall": [0.8, 0.5, 0.9], "precision": [0, 0, 0], "f1": [0, 0, 0]}
    assert choose_threshold("zebra", evaluated(curves=curves), recall=0.7).confidence == 0.001


def test_a_recall_that_is_never_reached_is_refused_with_the_best_one():
    """The message names the highest recall of the run."""
    curves = {"confidence": [0.0, 1.0], "recall": [0.8, 0.0], "precision": [0, 0], "f1": [0, 0]}
    with pytest.raises(UsageError, match=r"--recall: run zebra reaches 80.0 % at most .* got 90.0 %; pass less"):
        choose_threshold("zebra", evaluated(curves=curves), recall=0.9)


@pytest.mark.parametrize("known", [None, {"curves": {}}])
def test_without_a_curve_a_confidence_must_be_given(known):
    """A run without evaluation, or one that found nothing, has no threshold."""
    with pytest.raises(RunConflictError, match="no threshold of its own; pass --conf"):
        choose_threshold("zebra", known and evaluated(**known))
