"""Mistakes of an evaluation by kind: an object under another name is one mistake."""

from job.report.examples import KINDS, MAX_NAMED, Box, View, _view
from job.report.mistakes import confusion_matrix, confusions_of, mistakes_by_class
from job.training.evaluation_record import Confusion, Evaluation, ImageEvaluation
from tests.support.run_records import evaluation

NAMES = ("ostrich", "zebra")

KIND = {"num_images": 9, "precision": 0.5, "recall": 0.5, "f1": 0.5, "map50": 0.5, "map50_95": 0.5}


def evaluated(images=(), **more):
    """Return an evaluation of 100 ostriches, of which 67 are missed, and 50 zebras, all found."""
    classes = [
        {"name": "zebra", "num_objects": 50, "num_found": 50, "num_false_alarms": 60, **KIND},
        {"name": "ostrich", "num_objects": 100, "num_found": 33, "num_false_alarms": 4, **KIND},
    ]
    content = evaluation(0.5) | {"names": list(NAMES), "classes": classes, "images": list(images)}
    return Evaluation.model_validate(content | more)


def image(objects, predictions, *, num_objects=None):
    """Return an image of boxes."""
    missed, alarms = (sum(not box[5] for box in boxes) for boxes in (objects, predictions))
    return {
        "image": "images/val/000.jpg", "num_objects": len(objects) if num_objects is None else num_objects,
        "num_missed": missed, "num_false_alarms": alarms, "objects": objects, "predictions": predictions,
    }  # fmt: skip


CONFUSED = image(
    [[0.1, 0.1, 0.3, 0.3, 0, 0], [0.6, 0.6, 0.8, 0.8, 0, 0], [0.4, 0.1, 0.5, 0.2, 1, 1]],
    [[0.1, 0.1, 0.3, 0.31, 1, 0, 0.9], [0.7, 0.1, 0.8, 0.2, 1, 0, 0.8], [0.4, 0.1, 0.5, 0.2, 1, 1, 0.7]],
)
"""An ostrich called zebra, one that nothing lies on, a zebra on nothing, and one that is right."""


def test_a_class_is_told_with_the_names_that_it_was_given():
    """Of 67 missed ostriches 51 are called zebra; a class without a miss is not listed."""
    (ostrich,) = mistakes_by_class(evaluated(confusions=[Confusion(0, 1, 51)]))
    assert (ostrich.name, str(ostrich)) == ("ostrich", "67 of 100 missed, of them 51 called zebra")
    (alone,) = mistakes_by_class(evaluated(confusions=[]))
    assert str(alone) == "67 of 100 missed"


def test_the_matrix_adds_up_to_objects_and_detections():
    """A row has the objects of a class, a column all detections of that name."""
    matrix = confusion_matrix(evaluated(confusions=[Confusion(0, 1, 51)]))
    assert matrix.names == ["zebra", "ostrich"]
    assert matrix.rows == [("zebra", [50, 0], 0), ("ostrich", [51, 33], 16)]
    assert matrix.invented == [9, 4]


def test_an_older_evaluation_is_read_from_its_images_if_they_are_complete():
    """Where every image and box was kept, confusions are found in them; else they are not known."""
    assert confusions_of(evaluated([CONFUSED])) == [Confusion(0, 1, 1)]
    for incomplete in (evaluated([CONFUSED], num_images_left_out=1), evaluated([CONFUSED | {"num_objects": 4}])):
        assert confusions_of(incomplete) is None
        assert confusion_matrix(incomplete) is None
        assert str(mistakes_by_class(incomplete)[0]) == "67 of 100 missed"


def test_one_animal_is_one_mark():
    """An object and the detection of another class on it are one box that has both names, and count once."""
    view = _view(ImageEvaluation.model_validate(CONFUSED), (100, 100), (0, 0, 100, 100), NAMES)
    assert [(box.kind, box.text, box.left) for box in view.boxes] == [
        ("right", "zebra", 40.0),
        ("confused", "ostrich → zebra", 10.0),
        ("wrong", "zebra", 70.0),
        ("missed", "ostrich", 60.0),
    ]
    assert {box.kind for box in view.boxes} == set(KINDS)
    assert str(view) == "1 missed, 1 of another class, 1 false alarm"
    assert str(View(0, 0, 0, ())) == "no mistake"


def test_mistakes_are_named_where_there_is_room():
    """Mistakes have their names above or below their boxes, right boxes have none, and no name covers another."""
    first, near, below, low = (
        Box(10, top, 30, 30, kind, "ostrich", "ostrich")
        for top, kind in [(50, "missed"), (52, "missed"), (54, "wrong"), (56, "wrong")]
    )
    apart = Box(300, 50, 30, 30, "confused", "zebra called ostrich", "zebra → ostrich")
    right = Box(200, 50, 30, 30, "right", "zebra 0.9", "zebra")
    names = View(2, 1, 2, (right, first, near, below, low, apart)).names(340, 340)
    assert [(name.box, round(name.x), name.baseline) for name in names] == [
        (apart, 330, 47.5),
        (first, 10, 47.5),
        (near, 10, 92.0),
    ]


def test_a_picture_has_no_more_names_than_one_can_read():
    """Of many mistakes the gravest are named; at the upper edge a name stands below its box."""
    many = [Box(5, 30 * number, 10, 10, "wrong", "zebra", "zebra") for number in range(20)]
    missed = Box(300, 0, 10, 10, "missed", "ostrich", "ostrich")
    names = View(1, 0, 20, (*many, missed)).names(680, 680)
    assert len(names) == MAX_NAMED
    assert (names[0].box, names[0].baseline) == (missed, 30)


def test_a_name_that_no_object_has_is_a_column():
    """Objects called by the name of a class without objects are in the matrix, and not counted as nothing found."""
    matrix = confusion_matrix(evaluated(names=[*NAMES, "cow"], confusions=[Confusion(0, 2, 7)]))
    assert matrix.names == ["zebra", "ostrich", "cow"]
    assert matrix.rows == [("zebra", [50, 0, 0], 0), ("ostrich", [0, 33, 7], 60)]
    assert matrix.invented == [60, 4, 0]
