"""Choice of validation pictures: whole folders, whole flights, or one block of names; never random over neighbours."""

import pytest

from job.datasets.val_split import choose_val


def pictures(*groups):
    """Return pictures with objects, by group: its name with a place for the number, and their count."""
    return {name.format(number): True for name, count in groups for number in range(count)}


FOLDERS = pictures(*((f"flight{flight}/images/DJI_{{:04}}.jpg", 10) for flight in range(10)))
FLIGHTS = pictures(*((f"images/flight{flight}_{{0:04}}_jpg.rf.0a{{0:x}}.jpg", 10) for flight in range(10)))
ONE_FLIGHT = pictures(("images/DJI_{:04}.jpg", 100))


@pytest.mark.parametrize(("given", "length", "how"), [(FOLDERS, 7, "folders"), (FLIGHTS, 14, "flights")])
def test_groups_stay_together(given, length, how):
    """A fifth of the pictures is val, in whole folders, or in the flights that their names tell."""
    chosen = choose_val(given)
    groups = {path[:length] for path in given}
    assert (
        sorted({path[:length] for path in chosen.pictures} & {path[:length] for path in given.keys() - chosen.pictures})
        == []
    )
    assert (len(chosen.pictures), len(groups)) == (20, 10)
    assert f"val is 2 of 10 {how}, 20 of 100 pictures" in chosen.how


def test_the_choice_hangs_on_names_alone():
    """Another order of the pictures is the same choice, and pictures of a new flight move at most whole flights."""
    assert choose_val(dict(reversed(FOLDERS.items()))) == choose_val(FOLDERS)


@pytest.mark.parametrize(
    "given",
    [ONE_FLIGHT, pictures(*((f"{number * 7919 % 1009:x}{{}}.jpg", 1) for number in range(100)))],
    ids=["one flight", "names that say nothing"],
)
def test_what_has_no_groups_is_cut_once(given):
    """Val is the end of the names' order where neither folders nor names tell flights apart, and that is said."""
    chosen = choose_val(given)
    assert len(chosen.pictures) == 20
    assert "val is the last 20 of 100 pictures in the order of their names" in chosen.how
    if given is ONE_FLIGHT:
        assert min(chosen.pictures) == "images/DJI_0080.jpg"


def test_augmented_copies_of_a_picture_are_not_divided():
    """Copies of a picture that Roboflow has made are on one side of the cut."""
    given = {f"DJI_{number:04}_JPG.rf.{copy}{number:03}.jpg": True for number in range(11) for copy in "abc"}
    chosen = choose_val(given).pictures
    assert {path[:8] for path in chosen}.isdisjoint({path[:8] for path in given.keys() - chosen})


def test_val_has_objects():
    """A folder without an object is never all of val, and no choice leaves train without one."""
    given = dict.fromkeys(FOLDERS, False) | dict.fromkeys([path for path in FOLDERS if path < "flight2"], True)
    chosen = choose_val(given).pictures
    assert any(given[path] for path in chosen)
    assert any(given[path] for path in given.keys() - chosen)
    block = choose_val({path: path.endswith("0010.jpg") for path in ONE_FLIGHT}).pictures
    assert "images/DJI_0010.jpg" in block
