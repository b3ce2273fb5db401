"""Pictures with boxes."""

import cv2
import numpy as np
import pytest

from job.prediction.drawing import COLOURS, draw_boxes
from job.training.evaluation_record import Detection


@pytest.mark.parametrize("num_channels", [1, 3, 4])
def test_boxes_are_drawn_where_they_are(num_channels):
    """The sides of a box have its class's colour, and the picture that was given is unchanged."""
    picture = np.full((60, 80, num_channels), 128, np.uint8)
    data = draw_boxes(picture, (Detection(1, 0.5, 20.0, 25.0, 60.0, 50.0),), ["zebra", "Grévy"])
    drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (60, 80, 3)
    assert np.abs(drawn[37, 60].astype(int) - COLOURS[1]).max() < 60
    assert np.abs(drawn[37, 40].astype(int) - 128).max() < 20
    assert (picture == 128).all()
