"""Messages while a run trains: a fall is named when it happens."""

import logging

import pytest

from job.session.console import Reporter, say_finished
from job.training.callbacks import Step
from tests.support.run_records import metrics, record_run
from tests.support.terminal import screen, terminal_shown


def row(epoch, f1):
    """Return a row of results with an F1."""
    return {"epoch": epoch, **metrics(f1), **{f"train/{name}_loss": 1.0 for name in ("box", "cls", "dfl")}}


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
    found = warned(Reporter(10, None), {0: 0.4, 1: 0.45, 2: 0.5, 3: 0.007, 4: 0.01, 5: 0.02})
    assert list(found) == [3]
    assert len(found[3]) == 1
    assert "after epoch 3 the detector is far worse than after epoch 2: F1 50.0% -> 0.7%" in found[3][0]


def test_a_second_fall_is_named_again(warned):
    """Once a fall was won back, the next one is warned of, against the best epoch before it."""
    assert list(warned(Reporter(10, None), {0: 0.5, 1: 0.1, 2: 0.45, 3: 0.4, 4: 0.2})) == [1, 4]


def test_a_fall_below_the_start_weights_says_so(warned):
    """After the first epoch the comparison is with the start weights."""
    found = warned(Reporter(10, None), {0: 0.58, 1: 0.2})
    assert "after epoch 1 the detector is far worse than its start weights: F1 58.0% -> 20.0%" in found[1][0]


def test_a_resumed_attempt_knows_what_was_reached_before_it(warned):
    """A resumed attempt compares with the epochs of earlier ones, and does not name a fall of theirs again."""
    earlier = [row(1, 0.5), row(2, 0.55)]
    assert list(warned(Reporter(10, metrics(0.3), earlier), {3: 0.1})) == [3]
    fallen = [*earlier, row(3, 0.1)]
    assert warned(Reporter(10, metrics(0.3), fallen), {4: 0.12}) == {}


def test_slow_learning_from_nothing_is_no_fall(warned):
    """Metrics that scatter near 0 do not fall."""
    assert warned(Reporter(10, None), {0: 0.001, 1: 0.06, 2: 0.02, 3: 0.09, 4: 0.05}) == {}


def test_one_live_line_has_the_share_the_time_left_and_the_cost_of_the_whole_run():
    """While steps and validation go on below the lines of epochs, which fit 80 columns and stand alone."""
    with terminal_shown() as shown:
        times = iter((0.0, 10.0))
        reporter = Reporter(4, None, usd_so_far=lambda: 1.5, clock=lambda: next(times, 10.0))
        for batch in (1, 2):
            reporter.on_step(Step(1, batch, 2, {}, None))
        (line,) = screen(shown.getvalue())
        assert line.startswith("epoch 1/4, batch 2/2 |")
        assert line.endswith("|  25 %, 1 min 00 s left, $1.50 so far")
        reporter.on_validation_batch()
        assert screen(shown.getvalue())[-1].startswith("validation, batch 1 |")
        reporter.on_epoch({**row(1, 0.5), "train/box_loss": 12.345})
        reporter.on_step(Step(2, 1, 2, {}, None))
        epoch, *_, line = screen(shown.getvalue())
        assert epoch == "epoch 1/4  F1  50.0%  P  56.2%  R  45.0%  mAP50  50.0%  box 12.35  cls 1.00"
        assert line.startswith("epoch 2/4, batch 1/2 |")
        assert max(map(len, screen(shown.getvalue()))) <= 80
        reporter.close()
        assert screen(shown.getvalue())[-1].strip() == ""


def test_the_last_lines_have_the_weights_and_the_command_that_uses_them(tmp_path, capsys):
    """A finished run ends with where its weights are, and a command that can be copied."""
    run = record_run(tmp_path / "bucket", [0.6, 0.7])
    say_finished(run, run.final(), already=False)
    said = capsys.readouterr().out.replace(" \\\n", " ")
    assert f"weights     {tmp_path}/bucket/runs/zebra/weights/best.pt\nto use it " in said
    command = " ".join(said.partition("to use it ")[2].split())
    assert command == f"job predict zebra path/to/pictures --out found --bucket {tmp_path}/bucket"
