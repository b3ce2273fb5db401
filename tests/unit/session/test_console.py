"""Messages while a run trains: a fall is named when it happens."""

import logging
import sysconfig

import pytest

from job.session.console import Reporter, say_finished
from job.training.callbacks import Step
from tests.support.bucket_records import recorded
from tests.support.run_records import metrics, record_run
from tests.support.terminal import screen, terminal_shown


def row(epoch, f1):
    """Return a row of results with an F1."""
    return {"epoch": epoch, **metrics(f1), **{f"train/{name}_loss": 1.0 for name in ("box", "cls", "dfl")}}


def reporter(*words, record=None, **options):
    """Return a reporter of a run of recipe A."""
    return Reporter(*words, record=record or scheduled("A"), **options)


def scheduled(recipe, **options):
    """Return the record of a run whose optimizer was chosen automatically."""
    record = recorded(recipe, epochs=10, **options).record
    facts = record.facts.model_copy(update={"optimizer": "AdamW", "lr0": 0.00125})
    return record.model_copy(update={"facts": facts})


@pytest.fixture
def warned(caplog):
    """Return a function that shows epochs and returns the warnings by epoch."""

    def show(reporter, course):
        found = {}
        for epoch, f1 in course.items():
            caplog.clear()
            reporter.on_epoch(row(epoch, f1))
            said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
            if said:
                found[epoch] = said
        return found

    with caplog.at_level(logging.INFO):
        yield show


def test_a_fall_after_any_epoch_is_named_when_it_happens(warned):
    """From 50 to 0.7 % in epoch 3: that epoch is warned of by name, and the ones that stay down are not."""
    found = warned(reporter(10, None), {0: 0.4, 1: 0.45, 2: 0.5, 3: 0.007, 4: 0.01, 5: 0.02})
    assert list(found) == [3]
    assert len(found[3]) == 1
    assert "after epoch 3 the detector is far worse than after epoch 2: F1 50.0% -> 0.7%" in found[3][0]


def test_a_second_fall_is_named_again(warned):
    """Once a fall was won back, the next one is warned of, against the best epoch before it."""
    assert list(warned(reporter(10, None), {0: 0.5, 1: 0.1, 2: 0.45, 3: 0.4, 4: 0.2})) == [1, 4]


def test_a_fall_below_the_start_weights_says_so(warned):
    """After the first epoch the comparison is with the start weights."""
    found = warned(reporter(10, None), {0: 0.58, 1: 0.2})
    assert "after epoch 1 the detector is far worse than its start weights: F1 58.0% -> 20.0%" in found[1][0]


def test_a_resumed_attempt_knows_what_was_reached_before_it(warned):
    """A resumed attempt compares with the epochs of earlier ones, and does not name a fall of theirs again."""
    earlier = [row(1, 0.5), row(2, 0.55)]
    assert list(warned(reporter(10, metrics(0.3), earlier), {3: 0.1})) == [3]
    fallen = [*earlier, row(3, 0.1)]
    assert warned(reporter(10, metrics(0.3), fallen), {4: 0.12}) == {}


def test_slow_learning_from_nothing_is_no_fall(warned):
    """Metrics that scatter near 0 do not fall."""
    assert warned(reporter(10, None), {0: 0.001, 1: 0.06, 2: 0.02, 3: 0.09, 4: 0.05}) == {}


REMEDY = "--optimizer AdamW --lr0 0.0004 --warmup-bias-lr 0"
CAUSE = "the warm-up restarts the learning rate, from 0 to 0.00125, in the first 3 epochs"


def test_a_fall_in_the_warm_up_has_its_cause_and_the_remedy(warned):
    """The numbers are those of the run's own schedule: those that the optimizer chose, or those that were asked for;
    after the warm-up the rate itself may be too high.
    """
    course = {0: 0.58, 1: 0.2}
    (said,) = warned(reporter(10, None), course)[1]
    assert f"; {CAUSE}, or the labels or class order differ" in said
    assert said.endswith(f"stop and start a new run with {REMEDY}, a third of the rate")
    asked = scheduled("A", optimizer="SGD", lr0=0.01, warmup_epochs=1.0)
    (said,) = warned(reporter(10, None, record=asked), course)[1]
    assert "restarts the learning rate, from 0 to 0.01 and for biases from 0.1, in the first 1 epoch, or" in said
    assert "a new run with --lr0 0.003 --warmup-bias-lr 0," in said
    (said,) = warned(reporter(10, None, record=asked), {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.1})[3]
    assert "the learning rate, 0.01 at first, may be too high;" in said


def test_a_smaller_fall_is_told_too_and_so_is_its_end(caplog):
    """Five points or more are reported once, without a warning, and the epoch that is as good as the start weights."""
    shown = reporter(10, None)
    with caplog.at_level(logging.INFO):
        for epoch, f1 in {0: 0.58, 1: 0.50, 2: 0.51, 3: 0.59, 4: 0.6}.items():
            shown.on_epoch(row(epoch, f1))
    told = [record.message for record in caplog.records if "F1 fell" in record.message or "is back" in record.message]
    fell, back = told
    assert fell.startswith(
        f"F1 fell in epoch 1, from 58.0% of the start weights to 50.0%: {CAUSE}; not back there so far"
    )
    assert fell.endswith(f"; remedy for a new run: {REMEDY} (rule: a third of the rate)")
    assert back == "after epoch 3 F1 is back at that of the start weights"
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_one_live_line_has_the_share_the_time_left_and_the_cost_of_the_whole_run():
    """While steps and validation go on below the lines of epochs, which fit 80 columns and stand alone."""
    with terminal_shown() as shown:
        times = iter((0.0, 10.0))
        shower = reporter(4, None, usd_so_far=lambda: 1.5, clock=lambda: next(times, 10.0))
        for batch in (1, 2):
            shower.on_step(Step(1, batch, 2, {}, None))
        (line,) = screen(shown.getvalue())
        assert line.startswith("epoch 1/4, batch 2/2 |")
        assert line.endswith("|  25 %, 1 min 00 s left, $1.50 so far")
        shower.on_validation_batch()
        assert screen(shown.getvalue())[-1].startswith("validation, batch 1 |")
        shower.on_epoch({**row(1, 0.5), "train/box_loss": 12.345})
        shower.on_step(Step(2, 1, 2, {}, None))
        epoch, *_, line = screen(shown.getvalue())
        assert epoch == "epoch 1/4  F1  50.0%  P  56.2%  R  45.0%  mAP50  50.0%  box 12.35  cls 1.00"
        assert line.startswith("epoch 2/4, batch 1/2 |")
        assert max(map(len, screen(shown.getvalue()))) <= 80
        shower.close()
        assert screen(shown.getvalue())[-1].strip() == ""


@pytest.mark.parametrize("already", [False, True])
def test_the_last_lines_say_where_everything_is_and_what_is_next(tmp_path, capsys, monkeypatch, already):
    """A finished run ends with its report, its weights, a command that uses them, and the next step with its command;
    a second start says the same.
    """
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"))
    run = record_run(tmp_path / "bucket", [0.6, *[0.66] * 11])
    say_finished(run, run.record(), run.final(), already=already)
    lines = capsys.readouterr().out.split("\n\n")[-1]
    assert max(len(line) for line in lines.split("\n") if str(tmp_path) not in line) <= 80
    folder = f"{tmp_path}/bucket"
    assert " ".join(lines.replace(" \\\n", " ").split()) == (
        f"report {folder}/runs/zebra/report.html weights {folder}/runs/zebra/weights/best.pt "
        f"to use it job predict zebra path/to/pictures --out found --bucket {folder} "
        f"next recipe B, by the rule 'A not enough' job train --recipe B --dataset wild --bucket {folder}"
    )


def test_where_the_target_is_reached_nothing_is_next(tmp_path, capsys):
    """The last lines say so, and name no command."""
    run = record_run(tmp_path / "bucket", [0.6, *[0.75] * 11])
    say_finished(run, run.record(), run.final(), already=False)
    said = " ".join(capsys.readouterr().out.partition("next  ")[2].split())
    assert said.endswith("the target of 72% is reached, nothing more is needed")
