"""The users' rules: which recipe is next, from recorded courses."""

import json
import shlex

import pytest

from job.advice import RULES, Trend, advise, trend_of
from job.cli import main
from job.commands.train import OWN_FLAGS
from job.store.folder import FolderStore
from tests.support.recorded import USERS_COURSE, put_recorded, recorded

RISING = tuple(0.30 + 0.28 * epoch / 19 for epoch in range(20))
"""20 epochs that end at F1 58 % and rise to the end."""

FLAT = (0.30, 0.45, 0.52, 0.55, 0.57, 0.58, *[0.58] * 14)
"""20 epochs that end at F1 58 % and have not risen for long."""


def at(f1, shape=FLAT):
    """Return a course of the same shape that ends at an F1."""
    return tuple(value * f1 / max(shape) for value in shape)


def advised(evidence, *others, **options):
    """Return the advice after a run."""
    return advise(evidence, others, bucket="gs://zoo", **options)


def test_the_users_own_example_leads_to_a_or_continue():
    """F1 58 %, P 74 %, R 47 %, 20 epochs, still improving: A, or else continue."""
    advice = advised(recorded("base", course=RISING, precision=0.74, recall=0.47))
    assert (advice.rule, advice.trend) == ("decent, not robust, still improving", Trend.IMPROVING)
    assert [option.recipe for option in advice.options][:2] == ["A", "continue"]
    assert "F1 58.0%, precision 74.0%, recall 47.0%" in advice.because
    assert advice.options[0].command == "job train --recipe A --weights zebra --dataset wildlife --bucket gs://zoo"
    assert advice.options[0].gain_f1 == (0.07, 0.12)
    assert advice.options[0].hours == (2.0, 2.0)  # 80 epochs at the 90 s that an epoch took
    assert advice.thin == ()


@pytest.mark.parametrize(
    ("evidence", "rule", "recipes"),
    [
        (recorded("base", course=RISING), "still improving", ["continue", "extend", "A"]),
        (recorded("A", course=at(0.66, RISING)), "still improving", ["continue", "extend", "B"]),
        (recorded("base", course=at(0.40, RISING)), "still improving", ["continue", "extend", "A"]),
        (recorded("base", course=FLAT, precision=0.74, recall=0.47), "decent", ["A", "finetune"]),
        (recorded("A", course=at(0.68)), "good enough for C", ["C", "B", "transfer"]),
        (recorded("A", course=at(0.68, RISING)), "good enough for C", ["C", "B", "transfer"]),
        (recorded("recommended", course=at(0.70)), "good enough for C", ["C", "B", "transfer"]),
        (recorded("A", course=at(0.67)), "A not enough", ["B", "transfer"]),
        (recorded("A", course=(0.1,)), "A not enough", ["B", "transfer"]),
        (recorded("base", course=at(0.40)), "weak", ["B", "transfer"]),
        (recorded("base", course=(0.1, 0.2)), "weak, too few epochs", ["continue", "extend"]),
        (recorded("C", course=at(0.70)), "below the target", ["B", "transfer"]),
        (recorded("B", course=at(0.71)), "below the target", ["transfer"]),
        (recorded("B", course=at(0.3)), "weak", ["transfer"]),
        (recorded("A", course=at(0.75)), "target reached", []),
    ],
)
def test_each_rule_has_its_course(evidence, rule, recipes):
    """Each rule is the answer to a recorded course, with what may help in order."""
    advice = advised(evidence)
    assert (advice.rule, [option.recipe for option in advice.options]) == (rule, recipes)


def test_no_rule_is_without_a_course():
    """The tests above name every rule that there is."""
    named = {rule for mark in test_each_rule_has_its_course.pytestmark for _, rule, _ in mark.args[1]}
    assert {rule.name for rule in RULES} == named | {"decent, not robust, still improving"}


def test_the_users_course_ends_on_a_plateau():
    """The course that reaches its target rises until there and no further."""
    assert [trend_of(USERS_COURSE[:end]) for end in (5, 8, 11)] == [Trend.UNCLEAR, Trend.IMPROVING, Trend.PLATEAU]


def test_a_plateau_is_said_and_nothing_tried_is_advised_again():
    """Where every recipe that could help was tried, the advice is that none does."""
    tried = [recorded(name, run=name, course=at(0.66)) for name in ("A", "transfer")]
    advice = advised(recorded("B", course=at(0.70)), *tried)
    assert advice.recipe is None
    assert "on a plateau" in advice.because
    assert "no recipe that was not tried is expected to help" in advice.because


def test_a_recipe_that_promises_less_than_there_is_is_not_advised():
    """A band that ends below what a run has reached is no reason to train."""
    advice = advised(recorded("C", course=at(0.77)), target=0.8)
    assert [option.recipe for option in advice.options] == []


def test_runs_on_other_data_do_not_count():
    """What was tried on another validation set, or at demo scale, is advised all the same."""
    elsewhere = recorded("B", run="elsewhere", val="w" * 64, course=at(0.9))
    small = recorded("B", run="small", profile="demo", course=at(0.9))
    advice = advised(recorded("A", course=at(0.66)), elsewhere, small)
    assert (advice.recipe, advice.better) == ("B", None)


def test_a_better_run_is_named():
    """Advice about a run says that another one on the same validation set is better."""
    advice = advised(recorded("base", course=FLAT), recorded("A", run="lion", course=at(0.70)))
    assert advice.better == "lion"


def test_an_unfinished_run_is_to_be_finished():
    """A run without an end gets no recipe."""
    evidence = recorded()
    unfinished = type(evidence)(record=evidence.record, attempts=evidence.attempts, final=None)
    advice = advised(unfinished)
    assert (advice.rule, advice.options) == ("unfinished", ())


def test_thin_evidence_is_called_thin():
    """Few epochs, a tiny validation set and the demo profile are each named."""
    thin = advised(recorded("base", course=(0.1, 0.2), num_val=4, profile="demo")).thin
    assert [reason.split()[0] for reason in thin] == ["2", "4", "the"]


def test_the_cost_is_measured_where_it_can_be():
    """The time of an epoch is that of a run of the same recipe, else of the same model; else the authors' hours hold,
    and dollars follow from hours and a price.
    """
    run = recorded("A", course=at(0.66))
    expected = {option.recipe: option for option in advised(run, usd_per_hour=0.5).options}["B"]
    assert (expected.hours, expected.usd) == ((12, 16), (6.0, 8.0))
    assert "not measured" in expected.hours_from
    measured = advised(run, recorded("B", run="lion", course=at(0.2), imgsz=2048, epoch_s=450.0))
    assert [option.recipe for option in measured.options] == ["transfer"]
    other_size = advised(recorded("A", course=at(0.66), imgsz=640)).options[0]
    assert "--imgsz 640" in other_size.command
    assert advised(recorded("A", course=at(0.66))).options[0].usd is None


def test_the_command_is_one_that_the_job_understands():
    """Every advised command names flags that exist, and carries over what a person chose for the scale."""
    advice = advised(recorded("base", course=RISING, profile="demo", batch=2, imgsz=64))
    for option in advice.options:
        words = shlex.split(option.command)
        if words[1] == "train":
            flags = {word.removeprefix("--") for word in words if word.startswith("--")}
            assert flags <= {*OWN_FLAGS, "imgsz", "batch"}
            assert {"--profile", "--imgsz", "--batch"} <= set(words)


@pytest.fixture
def bucket(tmp_path):
    """A bucket with the users' example."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    put_recorded(store, recorded("base", course=RISING, precision=0.74, recall=0.47))
    return tmp_path / "bucket"


def test_the_command_line_advises_on_the_newest_run_in_80_columns(bucket, capsys):
    """Without a name the run that ended last is advised on, in lines of 80 columns; `--json` has the same."""
    assert main(["advise", "--bucket", str(bucket), "--usd-per-hour", "0.35"]) == 0
    shown = capsys.readouterr().out
    assert "advised     recipe A" in shown
    assert "+" not in shown
    assert "7.0 to 12.0 points of F1; the recipe expects 65 to 70 %" in shown
    assert "0.70 USD" in shown
    paths = str(bucket)
    assert [line for line in shown.splitlines() if len(line) > 80 and paths not in line] == []
    assert main(["advise", "zebra", "--bucket", str(bucket), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["recipe"], told["options"][0]["gain_f1"]) == ("A", [0.07, 0.12])


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["advise", "zbra"], 65, "did you mean 'zebra'"),
        (["advise", "--target-f1", "72"], 2, "a fraction of 1 such as 0.72, or 72%"),
        (["advise", "--usd-per-hour", "cheap"], 2, "an amount in dollars"),
    ],
)
def test_what_cannot_be_advised_on_is_refused(bucket, capsys, words, code, part):
    """A run that is not there, a target that is none and a price that is none are refused with what to do."""
    assert main([*words, "--bucket", str(bucket)]) == code
    assert part in capsys.readouterr().err
