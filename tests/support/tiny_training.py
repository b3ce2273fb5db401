"""The plan of a training that a test can afford: the smallest model from scratch, on one thread of the CPU."""


def plan_tiny_training(folder, data_yaml, train, workers=0):
    """Plan a training; Ultralytics has to be confined by now.

    Args:
        folder: Where the trainer may write.
        data_yaml: Tells where the images are.
        train: Ultralytics' argument names and values.
        workers: Processes that load images.
    """
    from job.training.trainer import Plan  # noqa: PLC0415 -- imports Ultralytics

    return Plan(
        train=train,
        data_yaml=data_yaml,
        folder=folder,
        architecture="yolo11n.yaml",
        weights=None,
        same_classes=False,
        device="cpu",
        workers=workers,
        num_threads=1,
    )
