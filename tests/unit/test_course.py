"""The notes on the epochs of a run, each rule from a recorded course."""

import pytest

from job.course import BEST, EARLY_GAIN, PLATEAU, RULES, STEADY_GAIN, STOPPED, TARGET, notes_on

USERS = (0.62, 0.65, 0.67, 0.69, 0.70, 0.71, 0.72, 0.72, 0.71, 0.72)
"""The users' own example: F1 after each epoch, from start weights of 0.58."""


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


@pytest.mark.parametrize(("target", "epoch"), [(0.65, [2]), (0.72, [7]), (0.73, []), (None, [])])
def test_the_target_is_noted_where_it_is_first_reached(target, epoch):
    """Whatever was expected is noted once, at the first epoch that has it, and never if none has."""
    assert with_note(notes_on(USERS, before=0.58, target=target, num_epochs=10), TARGET) == epoch


def test_a_course_that_still_rises_has_no_plateau():
    """Two epochs without a gain are no plateau, and a gain after a long halt ends what looked like one."""
    assert with_note(notes_on(USERS[:9], before=0.58, target=None, num_epochs=10), PLATEAU) == []
    assert with_note(notes_on((*USERS, 0.73), before=0.58, target=None, num_epochs=11), PLATEAU) == []


def test_a_plateau_takes_longer_in_a_long_run():
    """In a run of 100 epochs a plateau takes ten epochs."""
    course = [0.6, *[0.7] * 10]
    assert with_note(notes_on(course, before=0.5, target=None, num_epochs=100), PLATEAU) == []
    assert with_note(notes_on([*course, 0.7], before=0.5, target=None, num_epochs=100), PLATEAU) == [3]


def test_small_steps_are_noise_until_they_add_up():
    """Less than half a point above the best before is no gain."""
    notes = notes_on((0.502, 0.504, 0.51), before=0.5, target=None, num_epochs=100)
    assert with_note(notes, EARLY_GAIN) == [3]


def test_a_course_below_its_start_gains_nothing():
    """Epochs that only win back what the first one lost are no gains, and no plateau before they are near the best."""
    fallen = notes_on((0.3, 0.4, 0.5), before=0.6, target=None, num_epochs=3)
    assert {note for said in fallen for note in said} == {BEST}
    level = notes_on((0.3, 0.58, 0.59, 0.59), before=0.6, target=None, num_epochs=3)
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
    assert set(RULES) == {EARLY_GAIN, STEADY_GAIN, TARGET, PLATEAU, BEST, STOPPED}
