"""Small trainings for tests: the smallest model from scratch, on one thread of the CPU."""

from job.recipes.arguments import DEFAULTS

LEARNING = (
    *("--recipe", "base", "--model", "tiny.yaml", "--epochs", "9", "--imgsz", "64", "--batch", "2", "--nbs", "2"),
    *("--optimizer", "AdamW", "--lr0", "0.002", "--warmup-epochs", "0", "--mosaic", "0", "--scale", "0"),
    *("--translate", "0", "--hsv-h", "0"),
)
"""Words of a training that finds most objects after eight epochs of 32 tiny images of one class, so that its figures
and its best epoch are none of them nought.
"""

ARGUMENTS = DEFAULTS | {
    "epochs": 3,
    "batch": 4,
    "imgsz": 64,
    "close_mosaic": 1,
    "degrees": 15.0,
    "mixup": 0.3,
    "multi_scale": 0.5,
    "plots": False,
}
"""Of a training whose samples are drawn from several pictures, and change their size."""


def plan_tiny_training(folder, data_yaml, train, workers=0, device="cpu", architecture="yolo11n.yaml"):
    """Plan a training; Ultralytics has to be isolated before.

    Args:
        folder: Where the trainer may write.
        data_yaml: Has the paths of the images.
        train: Ultralytics' argument names and values.
        workers: Processes that load images.
        device: Of Ultralytics.
        architecture: ``tiny.yaml`` where the model does not matter, and the file is in this folder.
    """
    from job.training.trainer import Plan  # noqa: PLC0415 -- imports Ultralytics

    return Plan(
        train=train,
        data_yaml=data_yaml,
        folder=folder,
        architecture=architecture,
        weights=None,
        same_classes=False,
        device=device,
        workers=workers,
        num_threads=1,
    )
