"""A request for a prediction, for tests that change what they need."""

from job.prediction.records import PredictionRequest


def prediction_request(**changes):
    """Return a request of three pictures in shards of two, with some fields changed."""
    fields = {
        "run": "run",
        "weights": "a" * 64,
        "source": "b" * 64,
        "num_pictures": 3,
        "conf": 0.3,
        "iou": 0.7,
        "imgsz": 640,
        "max_det": 300,
        "only": None,
        "tiles": None,
        "overlap": 0.0,
        "batch": 1,
        "shard": 2,
        "draw": False,
    }
    return PredictionRequest(**fields | changes)
