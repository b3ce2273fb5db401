"""The rules for the next recipe, from recorded learning curves."""

import dataclasses
import json
import shlex

import pytest

from job.analysis.advice import NOTHING_HELPS, RULES, advise
from job.analysis.learning_curve import Trend, trend_of
from job.cli.app import main
from job.runs.records import Imported
from job.storage.local import FolderStore
from tests.support.bucket_records import USERS_COURSE, missing, put_recorded, recorded
from tests.support.cli_process import ROOT
from tests.unit.analysis.test_falls import DEMO

RISING = tuple(0.30 + 0.28 * epoch / 19 for epoch in range(20))
"""20 epochs that end at F1 58 % and rise to the end."""

FLAT = (0.30, 0.45, 0.52, 0.55, 0.57, 0.58, *[0.58] * 14)
"""20 epochs that end at F1 58 % and have not risen for long."""


def at(f1, shape=FLAT):
    """Return a course of the same shape that ends at an F1."""
    return tuple(value * f1 / max(shape) for value in shape)


def advised(summary, *others, **options):
    """Return the advice after a run."""
    return advise(summary, others, bucket="gs://zoo", **options)


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
    ("summary", "rule", "recipes"),
    [
        (recorded("base", course=RISING), "still improving", ["continue", "extend", "A"]),
        (recorded("A", course=at(0.66, RISING)), "still improving", ["continue", "extend", "B"]),
        (recorded("base", course=at(0.40, RISING)), "still improving", ["continue", "extend", "A"]),
        (recorded("base", course=FLAT, precision=0.74, recall=0.47), "decent", ["A", "finetune"]),
        (recorded("A", course=at(0.68)), "good enough for C", ["C", "B", "transfer"]),
        (recorded("A", course=at(0.68, RISING)), "good enough for C", ["C", "B", "transfer"]),
        (recorded("recommended", course=at(0.70)), "good enough for C", ["C", "B", "transfer"]),
        (recorded("A", course=at(0.67)), "A not enough", ["B", "transfer"]),
        (recorded("A", course=(0.1,)), "not trained to its end", ["extend"]),
        (recorded("base", course=at(0.40)), "weak", ["B", "transfer"]),
        (recorded("A", course=(0.69, 0.70)), "not trained to its end", ["extend"]),
        (recorded("C", course=at(0.70)), "below the target", ["B", "transfer"]),
        (recorded("B", course=at(0.71)), "below the target", ["transfer"]),
        (recorded("B", course=at(0.3)), "weak", ["transfer"]),
        (recorded("A", course=at(0.75)), "target reached", []),
        (missing(recorded("base", course=RISING), 60, 40, side_px=5472), "small objects missed", ["T", "A"]),
        (missing(recorded("A", course=at(0.70)), 60, 40, side_px=5472), "small objects missed", ["T"]),
        (missing(recorded("A", course=at(0.75)), 60, 40, side_px=5472), "target reached", []),
        (missing(recorded("T", course=at(0.66)), 60, 40, side_px=5472), "A not enough", ["B", "transfer"]),
        (recorded("T", course=at(0.66, RISING)), "still improving", ["extend"]),
    ],
)
def test_each_rule_has_its_course(summary, rule, recipes):
    """Each rule is the answer to a recorded course, with what may help in order."""
    advice = advised(summary)
    assert (advice.rule, [option.recipe for option in advice.options]) == (rule, recipes)


def test_no_rule_is_without_a_course():
    """The tests above name every rule that there is."""
    named = {rule for mark in test_each_rule_has_its_course.pytestmark for _, rule, _ in mark.args[1]}
    assert {rule.name for rule in RULES} == named | {"decent, not robust, still improving", "weak, too few epochs"}


def test_after_two_epochs_a_is_trained_to_its_end():
    """A run of two epochs is extended to the 80 of its recipe; where that cannot be, it is continued."""
    advice = advised(recorded("A", course=(0.1, 0.2)))
    assert "too few for a trend, 2 epochs: train A to its end, 80 epochs" in advice.because
    assert advice.options[0].command == "job extend zebra --epochs 80 --bucket gs://zoo"
    assert (advice.options[0].epochs, advice.options[0].hours) == (78, (1.95, 1.95))  # of 90 s
    summary = recorded("base", course=(0.1, 0.2))
    imported = summary.record.model_copy(update={"imported": Imported(folder="train", sha256="0" * 64)})
    advice = advised(dataclasses.replace(summary, record=imported))
    assert (advice.rule, [option.recipe for option in advice.options]) == ("weak, too few epochs", ["continue"])


def test_the_demo_ends_with_the_next_step_of_the_readme():
    """The course of the demo's A leads to the command that the README shows at its end."""
    demo = recorded("A", profile="demo", course=DEMO, start="own", dataset="wildlife-demo")
    advice = advise(demo, bucket="bucket")
    shown = " ".join((ROOT / "README.md").read_text().replace(" \\\n", " ").split())
    option = advice.options[0]
    assert f"next {option.title}, by the rule {advice.rule!r} .venv/bin/{option.command} Kill" in shown
    assert advice.falls == ()


def test_a_fall_is_told_with_its_cause_and_the_remedy():
    """The text of a fall has the numbers of the run's own schedule, and flags that its command has."""
    fallen = recorded("A", course=(0.1, 0.2, *at(0.66)))
    record = fallen.record.model_copy(
        update={"facts": fallen.record.facts.model_copy(update={"optimizer": "AdamW", "lr0": 0.00125})}
    )
    (fall,) = advised(dataclasses.replace(fallen, record=record)).falls
    assert fall == (
        "F1 fell in epoch 1, from 30.0% of the start weights to 10.0%: the warm-up restarts the learning rate, "
        "from 0 to 0.00125, in the first 3 epochs; back there by epoch 3; "
        "remedy for a new run: --optimizer AdamW --lr0 0.0004 --warmup-bias-lr 0 (rule: a third of the rate)"
    )
    assert advised(recorded("A", course=at(0.66))).falls == ()


@pytest.mark.parametrize("f1", [0.68, 0.70, 0.715, 0.716, 0.719])
def test_c_is_advised_up_to_the_target(f1):
    """From F1 68 % to the target of 72 %, C is the next step and is among what is advised, first."""
    advice = advised(recorded("A", course=at(f1)))
    assert advice.recipe == "C"
    assert "aggressive fine-tuning of these weights (C) is the next step" in advice.because


@pytest.mark.parametrize("recipe", ["base", "continue", "A", "B", "C"])
@pytest.mark.parametrize("shape", [FLAT, RISING])
@pytest.mark.parametrize("tried", [(), ("C",), ("A", "B", "transfer")])
def test_the_reason_names_the_advised_options(recipe, shape, tried):
    """For any F1 and any earlier runs, the reason names as next what the options have, and nothing else."""
    for f1 in (0.45, 0.58, 0.679, 0.69, 0.716, 0.73, 0.77):
        others = [recorded(name, run=name, course=at(f1 - 0.01, FLAT)) for name in tried if name != recipe]
        advice = advised(recorded(recipe, course=at(f1, shape)), *others, target=0.8)
        if advice.options:
            said = advice.because.rpartition("; so ")[2]
            names = [name.strip() for name in said.partition("(")[2].partition(")")[0].split(",")]
            assert names[0] == advice.recipe, advice
            assert set(names) <= {option.recipe for option in advice.options}, advice
        else:
            assert advice.rule == "target reached" or advice.because.endswith(NOTHING_HELPS)
            assert "; so " not in advice.because


@pytest.mark.parametrize(
    ("summary", "below", "above"),
    [
        (lambda f1: recorded("A", course=at(f1)), (0.679, "A not enough"), (0.68, "good enough for C")),
        (lambda f1: recorded("A", course=at(f1)), (0.719, "good enough for C"), (0.72, "target reached")),
        (lambda f1: recorded("base", course=at(f1)), (0.499, "weak"), (0.5, "decent")),
        (
            lambda gap: recorded("base", course=RISING, precision=0.6 + gap, recall=0.6),
            (0.0999, "still improving"),
            (0.101, "decent, not robust, still improving"),
        ),
        (
            lambda rise: recorded("base", course=(*[0.58] * 15, *[0.58 + rise] * 5)),
            (0.0049, "decent"),
            (0.005, "still improving"),
        ),
        (lambda number: recorded("base", course=(0.4,) * number), (5, "not trained to its end"), (6, "weak")),
    ],
)
def test_a_rule_begins_at_its_threshold(summary, below, above):
    """68 % for C, 72 % for the target, 50 % for decent, 10 points for robust, half a point for improving: the value
    itself counts, the one just below does not.
    """
    assert [advised(summary(value)).rule for value, _ in (below, above)] == [below[1], above[1]]


@pytest.mark.parametrize(
    ("small", "larger", "side_px", "is_advised"),
    [
        (50, 50, 2560, True),
        (49, 51, 2560, False),
        (50, 50, 2559, False),
        (100, 0, 2048, False),
        (0, 0, 5472, False),
    ],
)
def test_tiles_are_advised_only_for_small_misses_in_larger_files(small, larger, side_px, is_advised):
    """T needs files of 1.25 times imgsz and half of the misses under 16 px; its figures are in the reason."""
    advice = advised(missing(recorded("A", course=at(0.66)), small, larger, side_px=side_px))
    assert (advice.recipe == "T") is is_advised
    said = f"{small} of {small + larger} missed objects are under 16 px at 2048 px, and the files have {side_px} px"
    assert (said in advice.because) is is_advised


def test_tiles_are_not_advised_without_evidence_or_twice():
    """T needs the statistics of the data and the evaluation by size, and a set on which it was not trained yet."""
    run = missing(recorded("A", course=at(0.66)), 60, 40, side_px=5472)
    assert advised(run).recipe == "T"
    assert advised(dataclasses.replace(run, evaluation=None)).recipe == "B"
    assert advised(dataclasses.replace(run, record=recorded("A").record)).recipe == "B"
    assert advised(run, recorded("T", run="tiled", course=at(0.5))).recipe == "B"


@pytest.mark.parametrize(("batch", "more"), [(4, ""), (2, " --batch 8"), (1, " --batch 4")])
def test_the_command_for_tiles_has_as_many_pixels_as_the_run(batch, more):
    """A step of T has the pixels of one of A, at most: batch 16 at 1024 px for batch 4 at 2048 px; the size of a tile
    is that of the recipe.
    """
    run = missing(recorded("A", course=at(0.66), batch=batch), 60, 40, side_px=5472)
    command = "job train --recipe T --weights zebra --dataset wildlife"
    assert advised(run).options[0].command == f"{command}{more} --bucket gs://zoo"


@pytest.mark.parametrize(("f1", "recipes"), [(0.755, ["B"]), (0.7551, []), (0.745, ["B", "transfer"]), (0.7451, ["B"])])
def test_a_band_has_to_end_half_a_point_above_what_is_there(f1, recipes):
    """B may help up to 75.5 %, transfer up to 74.5 %: their bands end at 76 and 75 %."""
    advice = advised(recorded("C", course=at(f1)), target=0.8)
    assert [option.recipe for option in advice.options] == recipes


@pytest.mark.parametrize(
    ("num_epochs", "num_val", "thin"), [(10, 50, []), (9, 50, ["9"]), (10, 49, ["49"]), (9, 49, ["9", "49"])]
)
def test_ten_epochs_and_fifty_images_are_enough(num_epochs, num_val, thin):
    """Fewer of either is thin evidence, so many are not; objects are called objects."""
    reasons = advised(recorded("base", course=(0.5,) * num_epochs, num_val=num_val)).thin
    assert [reason.split()[0] for reason in reasons] == thin
    assert all("a few objects decide F1" in reason for reason in reasons if "images" in reason)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_scatter_at_the_end_is_no_improvement(noise):
    """A best value by luck among the last epochs is a plateau; the same rise without scatter is one."""
    course = [0.6 + noise * (-1) ** epoch for epoch in range(40)]
    course[35] += 0.009
    assert trend_of(course) is (Trend.PLATEAU if noise else Trend.IMPROVING)


@pytest.mark.parametrize(("num_epochs", "window"), [(5, None), (6, 3), (12, 3), (16, 4), (40, 10), (100, 10)])
def test_the_trend_is_that_of_a_quarter_of_the_epochs(num_epochs, window):
    """The trend is that of a quarter of the epochs, from 3 to 10; twice as many are needed."""
    if window is None:
        assert trend_of([0.5] * num_epochs) is Trend.UNCLEAR
        return
    inside, outside = [0.5] * num_epochs, [0.5] * num_epochs
    inside[-window], outside[-window - 1] = 0.6, 0.6
    assert (trend_of(inside), trend_of(outside)) == (Trend.IMPROVING, Trend.PLATEAU)


def test_the_users_course_ends_on_a_plateau():
    """The course that reaches its target rises until there and no further."""
    assert [trend_of(USERS_COURSE[:end]) for end in (5, 8, 11)] == [Trend.UNCLEAR, Trend.IMPROVING, Trend.PLATEAU]


def test_a_plateau_is_named_and_nothing_tried_is_advised_again():
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
    """A recipe that was tried on another validation set, or at demo scale, is advised all the same."""
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
    summary = recorded()
    unfinished = type(summary)(record=summary.record, attempts=summary.attempts, final=None)
    advice = advised(unfinished)
    assert (advice.rule, advice.options) == ("unfinished", ())


def test_thin_evidence_is_called_thin():
    """Few epochs, a tiny validation set and the demo profile are each named."""
    thin = advised(recorded("base", course=(0.1, 0.2), num_val=4, profile="demo")).thin
    assert [reason.split()[0] for reason in thin] == ["2", "4", "the"]


def test_pictures_of_training_in_validation_are_thin_evidence():
    """Validation images that look like ones of training are counted among the reasons not to trust the advice."""
    run = missing(recorded("A", course=at(0.66)), 60, 40, side_px=2048)
    statistics = run.record.dataset.statistics.model_copy(update={"num_alike": 3})
    dataset = run.record.dataset.model_copy(update={"statistics": statistics})
    thin = advised(dataclasses.replace(run, record=run.record.model_copy(update={"dataset": dataset}))).thin
    assert set(thin) - set(advised(run).thin) == {
        "3 validation images like one that was trained on; metrics are too high"
    }


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


def test_the_command_carries_over_what_a_person_chose():
    """Profile, image size and a smaller batch are those of the run."""
    advice = advised(recorded("base", course=RISING, profile="demo", batch=2, imgsz=64))
    for option in advice.options:
        words = shlex.split(option.command)
        if words[1] == "train":
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
    printed = json.loads(capsys.readouterr().out)
    assert (printed["recipe"], printed["options"][0]["gain_f1"]) == ("A", [0.07, 0.12])


def test_the_command_line_knows_which_objects_were_missed(tmp_path, capsys):
    """`job advise` reads the newest run's evaluation by size and the check's sizes, without the data."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    put_recorded(store, missing(recorded("A", course=at(0.66)), 60, 40, side_px=5472))
    assert main(["advise", "--bucket", store.uri]) == 0
    shown = capsys.readouterr().out
    assert "rule        small objects missed" in shown
    assert "advised     recipe T" in shown
    assert "gain        not stated by the recipe" in shown
    store.put("runs/zebra/evaluation.json", b"{}", overwrite=True)
    assert main(["advise", "--bucket", store.uri]) == 0
    assert "advised     recipe B" in capsys.readouterr().out


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
