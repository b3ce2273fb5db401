"""Mistakes of an evaluation by kind: objects called by another name, missed objects, false alarms.

Guarantees that an object and a detection of another class on it are one mistake. Knows nothing of HTML.
"""

from collections import Counter
from dataclasses import dataclass

from job.training.evaluation_record import Confusion, Evaluation
from job.training.matching import confused_pairs

MAX_CLASSES = 20
"""Classes of the largest matrix that a page has room for."""


@dataclass(frozen=True, slots=True)
class ClassMistakes:
    """Mistakes about the objects of one class."""

    name: str
    num_objects: int
    num_missed: int
    called: dict[str, int]
    """Missed objects by the name that the model gave them, the most frequent first."""

    def __str__(self) -> str:
        called = ", ".join(f"{num:,} called {name}" for name, num in self.called.items())
        return f"{self.num_missed:,} of {self.num_objects:,} missed" + (f", of them {called}" if called else "")


def confusions_of(evaluation: Evaluation) -> list[Confusion] | None:
    """Return the recorded confusions, or those in the images if these are all and complete; else None."""
    if evaluation.confusions is not None:
        return evaluation.confusions
    is_complete = not evaluation.num_images_left_out and all(
        len(image.objects) == image.num_objects
        and sum(not box.is_right for box in image.predictions) == image.num_false_alarms
        for image in evaluation.images
    )
    if not is_complete:
        return None
    counts = Counter(
        (image.objects[missed].category, image.predictions[number].category)
        for image in evaluation.images
        for number, missed in confused_pairs(image.objects, image.predictions).items()
    )
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [Confusion(*classes, num) for classes, num in ranked]


def mistakes_by_class(evaluation: Evaluation) -> list[ClassMistakes]:
    """Return the classes of which an object was missed, the one with the most first."""
    named = [
        (evaluation.class_name(each.category), evaluation.class_name(each.called), each.num_objects)
        for each in confusions_of(evaluation) or ()
    ]
    found = [
        ClassMistakes(
            each.name,
            each.num_objects,
            each.num_objects - each.num_found,
            {called: num for name, called, num in named if name == each.name},
        )
        for each in evaluation.classes
        if each.num_objects > each.num_found
    ]
    return sorted(found, key=lambda each: -each.num_missed)


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Objects by their class and by the name that the model gave them."""

    names: list[str]
    rows: list[tuple[str, list[int], int]]
    """Of each class: its name, its objects by called class, and those that nothing lies on."""

    invented: list[int]
    """Detections of each class that lie on no missed object; 0 for a class without objects."""


def confusion_matrix(evaluation: Evaluation) -> ConfusionMatrix | None:
    """Return the matrix of the classes that have objects or detections; None if unknown, of one class, or too large."""
    confusions, classes = confusions_of(evaluation), evaluation.classes
    if confusions is None or not 1 < len(classes) <= MAX_CLASSES:
        return None
    counts = Counter(
        {
            (evaluation.class_name(each.category), evaluation.class_name(each.called)): each.num_objects
            for each in confusions
        }
    )
    names = list(dict.fromkeys([*(each.name for each in classes), *(called for _, called in counts)]))
    rows, invented = [], [0] * len(names)
    for each in classes:
        called = [each.num_found if name == each.name else counts[each.name, name] for name in names]
        rows.append((each.name, called, each.num_objects - sum(called)))
        invented[names.index(each.name)] = each.num_false_alarms - sum(counts[other, each.name] for other in names)
    return ConfusionMatrix(names, rows, invented)
