"""The notes on the epochs of a run, each rule from a recorded curve."""

import itertools
import math
import random

import pytest

from job.analysis.learning_curve import (
    BEST,
    EARLY_GAIN,
    FALLEN,
    PLATEAU,
    RULES,
    STEADY_GAIN,
    STOPPED,
    TARGET,
    describe_trend,
    noise_of,
    notes_on,
    plateau_from,
)

USERS = (0.62, 0.65, 0.67, 0.69, 0.70, 0.71, 0.72, 0.72, 0.71, 0.72)
"""The users' own example: F1 after each epoch, from start weights of 0.58."""


GUIDE = (0.58, 0.62, 0.65, 0.67, 0.69, 0.70, 0.71, 0.72, 0.72, 0.71, 0.72)
"""The users' own table: F1 of the start weights and after epochs 10, 20, ..., 100."""


def guide(noise=0.0, seed=0):
    """Return the users' table as a curve of 100 epochs, with noise on each."""
    chance = random.Random(seed)  # noqa: S311 -- not for secrets
    return [
        low + (high - low) * tenth / 10 + chance.gauss(0, noise)
        for low, high in itertools.pairwise(GUIDE)
        for tenth in range(1, 11)
    ]


def noisy(values, noise, seed=0):
    """Return values with noise on each."""
    chance = random.Random(seed)  # noqa: S311 -- not for secrets
    return [value + chance.gauss(0, noise) for value in values]


CURVES = {
    "the guide's": guide(),
    "a small validation set": guide(0.01, seed=4),
    "learns to the end": noisy([0.58 + 0.0015 * epoch for epoch in range(1, 81)], 0.005),
    "was done before it began": noisy([0.70] * 80, 0.01),
    "from scratch": noisy([0.6 * (1 - math.exp(-epoch / 12)) for epoch in range(1, 81)], 0.006),
    "the optimizer begins anew": [0.45, 0.52, 0.56, 0.58, 0.60, 0.61, 0.62, 0.63, 0.635, 0.64, 0.645, *[0.65] * 9],
    "collapses": [*(0.5 + 0.003 * epoch for epoch in range(30)), *[0.007] * 10],
    "dips and recovers": [
        *(0.6 + 0.003 * epoch for epoch in range(20)), 0.57, 0.55, 0.58, *(0.66 + 0.002 * e for e in range(17)),
    ],
    "overfits": noisy([*(0.58 + 0.003 * e for e in range(30)), *(0.67 - 0.002 * e for e in range(50))], 0.003),
    "mosaic ends": noisy([*[0.66] * 70, *[0.69] * 10], 0.004),
}  # fmt: skip
"""Courses as they happen, each with what it is."""

BEFORE = {"collapses": 0.5, "was done before it began": 0.70, "from scratch": 0.0, "mosaic ends": 0.66}


def with_note(notes, note):
    """Return the epochs that have a note."""
    return [epoch for epoch, said in enumerate(notes, start=1) if note in said]


def test_the_users_example_names_target_plateau_and_best():
    """From 0.58, with 0.70 expected and 10 epochs: the target is reached in epoch 5, the best model is that of epoch 7,
    the plateau begins in epoch 8, and the gains before are two early and five steady ones.
    """
    notes = notes_on(USERS, before=0.58, target=0.70, num_epochs=10)
    assert with_note(notes, TARGET) == [5]
    assert with_note(notes, BEST) == [7]
    assert with_note(notes, PLATEAU) == [8]
    assert with_note(notes, EARLY_GAIN) == [1, 2]
    assert with_note(notes, STEADY_GAIN) == [3, 4, 5, 6, 7]
    assert with_note(notes, STOPPED) == []


def noted(name):
    """Return the epochs that have each note, of one of the curves."""
    curve = CURVES[name]
    notes = notes_on(curve, before=BEFORE.get(name, 0.58), target=0.70, num_epochs=len(curve))
    return {note: with_note(notes, note) for note in RULES}


@pytest.mark.parametrize("name", ["the guide's", "a small validation set"])
def test_the_guides_table_reads_as_in_the_guide(name):
    """Over 100 epochs, with or without noise: gains in the first 20, steady ones in each 20 from there to epoch 60, the
    target near epoch 50, and a plateau that begins near epoch 70; nothing falls.
    """
    notes = noted(name)
    assert min(notes[EARLY_GAIN]) <= 10
    assert max(notes[EARLY_GAIN]) <= 20
    assert all(any(first < epoch <= first + 20 for epoch in notes[STEADY_GAIN]) for first in (20, 40))
    assert notes[TARGET][0] in range(38, 51)
    assert notes[PLATEAU][0] in range(60, 81)
    assert notes[FALLEN] == []


@pytest.mark.parametrize(("noise", "least"), [(0.0, 1.0), (0.003, 0.97), (0.01, 0.9), (0.02, 0.8)])
def test_a_plateau_is_seen_through_noise_and_a_slow_rise_is_none(noise, least):
    """Of drawn curves with the users' table, most are on a plateau at the end; of those that stay level nearly all; of
    those that still rise by ten points or more over the run nearly none.
    """
    seeds = range(120)

    def share(curves):
        return sum(plateau_from(curve, 0.58, 100) is not None for curve in curves) / len(seeds)

    assert share(guide(noise, seed) for seed in seeds) >= least
    assert share(noisy([0.58] * 100, noise, seed) for seed in seeds) >= 0.95
    for points in (10, 15, 30):
        rising = [0.58 + points / 100 * epoch / 100 for epoch in range(100)]
        assert share(noisy(rising, noise, seed) for seed in seeds) <= 0.05


def test_slow_gains_add_up():
    """A rise of a sixth of a point an epoch is no plateau, early or late: it gains every few epochs to its end."""
    notes = noted("learns to the end")
    gains = notes[EARLY_GAIN] + notes[STEADY_GAIN]
    assert max(after - before for before, after in zip([0, *gains], [*gains, 80], strict=True)) <= 16
    assert (notes[PLATEAU], notes[FALLEN]) == ([], [])


def test_noise_is_no_gain():
    """A curve that scatters by a point around its start gains nothing, and is a plateau from the beginning."""
    notes = noted("was done before it began")
    assert (notes[EARLY_GAIN], notes[STEADY_GAIN], notes[PLATEAU], notes[FALLEN]) == ([], [], [1], [])


def test_learning_from_scratch_gains_until_it_levels_off():
    """Gains come thick at first, and the plateau is where an exponential has 95 % of its height or more."""
    notes = noted("from scratch")
    assert len(notes[EARLY_GAIN]) >= 10
    assert notes[PLATEAU][0] in range(36, 73)
    assert notes[FALLEN] == []


def test_a_first_epoch_that_loses_much_is_a_fall_and_winning_it_back_no_gain():
    """From 58 to 45 %: the first epoch falls, and the first gain is the one above the start."""
    notes = noted("the optimizer begins anew")
    assert notes[FALLEN] == [1]
    assert notes[EARLY_GAIN] + notes[STEADY_GAIN] == [5, 6, 7, 8, 9, 10, 11, 12]
    assert notes[PLATEAU] == [13]


def test_a_fall_is_noted_where_it_happens_and_once():
    """A collapse from 59 to 0.7 % is a fall in its first epoch, and what stays down is no plateau."""
    notes = noted("collapses")
    assert (notes[FALLEN], notes[PLATEAU]) == ([31], [])


def test_a_dip_is_a_fall_and_later_gains_count():
    """Three epochs below the best are one fall; later gains count against what was there before it."""
    notes = noted("dips and recovers")
    assert notes[FALLEN] == [21]
    assert next(epoch for epoch in notes[STEADY_GAIN] if epoch > 20) in range(24, 28)


def test_what_overfits_gains_and_then_falls():
    """A slow decline is a fall once it has lost five points, and no plateau."""
    notes = noted("overfits")
    assert max(notes[STEADY_GAIN]) in range(28, 34)
    assert notes[FALLEN][0] in range(50, 60)
    assert notes[PLATEAU] == []


def test_a_late_gain_ends_a_plateau():
    """The last ten epochs, which train without mosaic, may gain after all."""
    notes = noted("mosaic ends")
    assert notes[EARLY_GAIN] == []
    assert min(notes[STEADY_GAIN]) in range(71, 76)
    assert notes[PLATEAU] == []


@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_noise_is_separated_from_a_trend(noise):
    """The estimate is that of the scatter, whatever rises or jumps beneath it; a few epochs give none."""
    rising = noisy([*(0.3 + 0.004 * epoch for epoch in range(50)), *[0.7] * 50], noise)
    assert noise_of(rising) == pytest.approx(noise, rel=0.35)
    assert noise_of(rising[:11]) == 0.0


def test_a_fall_needs_five_points_or_more_where_there_is_noise():
    """Just below five points is none, five points are one, and a curve that scatters by two points needs more."""
    assert with_note(notes_on((0.551, 0.56), before=0.6, target=None, num_epochs=2), FALLEN) == []
    assert with_note(notes_on((0.55, 0.56), before=0.6, target=None, num_epochs=2), FALLEN) == [1]
    scattered = noisy([0.6] * 40, 0.02)
    assert with_note(notes_on(scattered, before=0.6, target=None, num_epochs=40), FALLEN) == []


@pytest.mark.parametrize(("target", "epoch"), [(0.65, [2]), (0.72, [7]), (0.73, []), (None, [])])
def test_the_target_is_noted_where_it_is_first_reached(target, epoch):
    """Whatever was expected is noted once, at the first epoch that has it, and never if none has."""
    assert with_note(notes_on(USERS, before=0.58, target=target, num_epochs=10), TARGET) == epoch


def test_a_curve_that_still_rises_has_no_plateau():
    """Two epochs without a gain are no plateau, and a gain after a long halt ends what looked like one."""
    assert with_note(notes_on(USERS[:9], before=0.58, target=None, num_epochs=10), PLATEAU) == []
    assert with_note(notes_on((*USERS, 0.73), before=0.58, target=None, num_epochs=11), PLATEAU) == []


def test_a_plateau_takes_longer_in_a_long_run():
    """In a run of 100 epochs a plateau takes ten epochs, from where the median of five has risen as far as it does."""
    curve = [0.6, *[0.7] * 11]
    assert with_note(notes_on(curve, before=0.5, target=None, num_epochs=100), PLATEAU) == []
    assert with_note(notes_on([*curve, 0.7], before=0.5, target=None, num_epochs=100), PLATEAU) == [4]


def test_small_steps_are_noise_until_they_add_up():
    """Less than half a point above the best before is no gain."""
    notes = notes_on((0.502, 0.504, 0.51), before=0.5, target=None, num_epochs=20)
    assert with_note(notes, EARLY_GAIN) == [3]


def test_a_curve_below_its_start_gains_nothing():
    """Epochs that only win back what the first one lost are no gains, and no plateau before they are near the best."""
    fallen = notes_on((0.3, 0.4, 0.5), before=0.6, target=None, num_epochs=3)
    assert {note for said in fallen for note in said} == {FALLEN, BEST}
    level = notes_on((0.56, 0.58, 0.59, 0.59), before=0.6, target=None, num_epochs=3)
    assert with_note(level, PLATEAU) == [1]


def test_best_is_the_epoch_of_the_weights_and_patience_is_noted_last():
    """Where the weights of another epoch than that of the highest value were kept, that one is best; a run that
    stopped early says so in its last epoch.
    """
    notes = notes_on(USERS, before=0.58, target=0.7, num_epochs=100, best_epoch=8, stopped_early=True)
    assert (with_note(notes, BEST), with_note(notes, STOPPED)) == ([8], [10])


def test_nothing_is_noted_of_no_epoch_and_every_note_has_its_rule():
    """A run before its first epoch has no notes; what may be noted is what the rules state."""
    assert notes_on((), before=0.5, target=0.7, num_epochs=10) == []
    assert set(RULES) == {EARLY_GAIN, STEADY_GAIN, TARGET, PLATEAU, FALLEN, BEST, STOPPED}


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ([0.6, 0.6, 0.6], "on a plateau, the best F1 did not rise in the last 3 epochs"),
        ([0.6, 0.6004, 0.6], "on a plateau, the best F1 did not rise in the last 3 epochs"),
        ([0.62, 0.64, 0.66], "still improving, the best F1 rose by 6.0 points in the last 3 epochs"),
    ],
)
def test_a_rise_is_named_where_there_is_one(end, said):
    """A plateau without a rise of a tenth of a point has none."""
    assert describe_trend([0.6] * 9 + end) == said
