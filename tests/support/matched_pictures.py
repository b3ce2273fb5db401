"""Pictures with objects and detections at known places, matched."""

import numpy as np

from job.training.matching import IOUS, MatchedPicture


def picture(name, objects=(), detections=(), gain=0.5):
    """Return a picture of one class or of several.

    Args:
        name: Of its file.
        objects: Class and size in pixels of the file, each.
        detections: Class, confidence, size, and the number of the object that it is right about or -1, each.
        gain: Pixels at `imgsz` for each of the file.
    """
    detections = sorted(detections, key=lambda each: -each[1])
    sizes, found_sizes = np.array([size for _, size in objects]), np.array([each[2] for each in detections])
    return MatchedPicture(
        image=name,
        object_classes=np.array([category for category, _ in objects], int),
        object_px=np.stack([sizes, gain * sizes], 1).reshape(-1, 2),
        classes=np.array([each[0] for each in detections], int),
        confidences=np.array([each[1] for each in detections], float),
        px=np.stack([found_sizes, gain * found_sizes], 1).reshape(-1, 2),
        about=np.repeat(np.array([each[3] for each in detections], int)[:, None], len(IOUS), 1),
    )
