"""Classes that fell while F1 of all classes rose: which are named, and where."""

import pytest

from job.analysis.class_falls import MIN_PICTURES, find_class_falls
from job.cli.app import main
from job.training.evaluation_record import Evaluation
from tests.support.run_records import evaluation, record_run

NUM_PICTURES = 8


def pictures(zebras, others=2):
    """Return counts by picture: of the two zebras in each as many as given are found, and of two others a number."""
    return [
        [f"images/val/{number:03}.jpg", [[0, 2, found, 0], [1, 2, others, 0]]] for number, found in enumerate(zebras)
    ]


ALL, HALF = [2] * NUM_PICTURES, [1] * NUM_PICTURES


def falls(was, now, f1=(0.5, 0.6)):
    """Return what is said of start weights and best weights with such counts by picture."""
    both = [
        Evaluation.model_validate(evaluation(each, pictures=seen)) for each, seen in zip(f1, (was, now), strict=True)
    ]
    return find_class_falls(*both)


def test_a_class_that_fell_in_every_picture_is_named_with_its_interval():
    """Recall of one class fell by half while that of the other one rose: the figures and the interval are told."""
    (told,) = falls(pictures(ALL, others=0), pictures(HALF))
    assert told.startswith(
        "zebra fell while F1 of all classes rose: F1 100.0 % to 66.7 %, -33.3 [-33.3, -33.3]; recall "
    )
    assert "100.0 % to 50.0 %, -50.0 [-50.0, -50.0] (points, 95 % interval over the same 8 pictures)" in told


@pytest.mark.parametrize(
    ("was", "now", "f1"),
    [
        (pictures(ALL), pictures([1, *ALL[1:]]), (0.5, 0.6)),
        (pictures(ALL), pictures(HALF), (0.6, 0.5)),
        (pictures(ALL[: MIN_PICTURES - 1]), pictures(HALF[: MIN_PICTURES - 1]), (0.5, 0.6)),
        (pictures(ALL), pictures(HALF)[1:], (0.5, 0.6)),
        ((), (), (0.5, 0.6)),
        (pictures(HALF), pictures(ALL), (0.5, 0.6)),
    ],
    ids=["one picture", "all fell", "too few pictures", "other pictures", "not recorded", "rose"],
)
def test_what_may_be_chance_or_is_no_fall_is_not_told(was, now, f1):
    """A difference whose interval has 0, a class in few pictures, or two sets of pictures prove nothing."""
    assert falls(was, now, f1) == []


def test_report_and_advice_name_the_class(tmp_path, capsys):
    """The page says it below what is missed, and `job advise` among the falls."""
    run = record_run(tmp_path / "bucket", [0.6, 0.65], pictures=(pictures(ALL, others=0), pictures(HALF)))
    told = "zebra fell while F1 of all classes rose: F1 100.0 % to 66.7 %"
    assert main(["report", "zebra", "--bucket", run.store.uri]) == 0
    assert told in run.store.read(run.key("report.html")).decode()
    capsys.readouterr()
    assert main(["advise", "zebra", "--bucket", run.store.uri]) == 0
    assert told in " ".join(capsys.readouterr().out.split())
