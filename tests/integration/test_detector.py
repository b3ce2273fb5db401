"""A detector on whole pictures and on tiles."""

import numpy as np
import pytest

from tests.support.red_squares import RedSquares


@pytest.fixture
def make_detector(confined, monkeypatch):
    """A function that returns a detector of red squares at 64 pixels."""
    from job.training import detector  # noqa: PLC0415 -- once Ultralytics is confined

    monkeypatch.setattr(detector, "load_weights", lambda _path: RedSquares())

    def make(**settings):
        chosen = detector.DetectionSettings(conf=0.25, iou=0.7, imgsz=64, max_det=300, **settings)
        return detector.Detector("best.pt", chosen, "cpu", 1)

    return make


def picture_with(squares, width=256, height=192):
    """Return a white picture with red squares, BGR."""
    picture = np.full((height, width, 3), 255, np.uint8)
    for left, top, size in squares:
        picture[top : top + size, left : left + size] = (0, 0, 255)
    return picture


SQUARES = [(20, 30, 6), (200, 160, 6), (100, 8, 40), (61, 61, 7)]
"""Three too small for a quarter of the pixels, one of them where tiles of 64 pixels overlap."""


def test_tiles_find_small_objects_once(make_detector):
    """Each square is found once and where it is, those too small for the whole picture as well."""
    picture = picture_with(SQUARES)
    (whole,) = make_detector().detect([picture])
    assert len(whole) == 1
    (found,) = make_detector(tiles=64, overlap=0.25, batch=4).detect([picture])
    assert len(found) == len(SQUARES)
    for left, top, size in SQUARES:
        assert any(np.allclose(box[2:], (left, top, left + size, top + size), atol=4) for box in found)


def test_results_of_a_batch_are_in_its_order(make_detector):
    """Each picture of a batch has its own boxes, pictures of several shapes and without objects included."""
    pictures = [picture_with([(8, 8, 40)]), picture_with([], 100, 50), picture_with([(8, 8, 20)], 64, 64)]
    assert [len(found) for found in make_detector().detect(pictures)] == [1, 0, 1]
    assert make_detector().detect([]) == []


def test_a_device_that_does_not_exist_is_a_fault_of_the_machine(confined, monkeypatch):
    """A GPU that is not there is refused with what to pass."""
    from job.errors import MachineError  # noqa: PLC0415 -- with the others
    from job.training import detector  # noqa: PLC0415 -- once Ultralytics is confined

    monkeypatch.setattr(detector, "load_weights", lambda _path: RedSquares())
    settings = detector.DetectionSettings(conf=0.25, iou=0.7, imgsz=64, max_det=300)
    with pytest.raises(MachineError, match="pass another --device"):
        detector.Detector("best.pt", settings, "97", 1)
