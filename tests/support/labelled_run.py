"""A finished run of records whose dataset is in its bucket, with weights from scratch."""

from pathlib import Path

from job.datasets.lockfile import read_version
from tests.support.bucket import make_bucket, run_in
from tests.support.predicting import make_finished_run
from tests.support.tiny_dataset import make_tiny_dataset

NUM_CLASSES = 2


def make_weights(path: Path, size="n") -> Path:
    """Write weights from scratch that tell pictures apart; Ultralytics has to be isolated before.

    Running means of batch norm are those of random pictures, or every layer fades out, and a changed weight with it.
    """
    import torch  # noqa: PLC0415 -- importing torch takes seconds
    from ultralytics.nn.tasks import DetectionModel  # noqa: PLC0415 -- Ultralytics is confined first

    from tests.support.checkpoints import save  # noqa: PLC0415 -- imports Ultralytics

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = DetectionModel(f"yolo11{size}.yaml", nc=NUM_CLASSES, verbose=False)
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None  # their mean
        model.train()(torch.rand(8, 3, 64, 64))
        for branch in model.model[-1].cv3:
            branch[-1].bias.fill_(-1.0)
    model.names, model.args = {0: "animal", 1: "bird"}, {"task": "detect"}
    return save(path, model.eval())


def make_labelled_run(folder: Path, weights: Path) -> str:
    """Write a finished run `zebra` on a tiny dataset, and return its bucket."""
    bucket = make_finished_run(folder / "bucket", weights)
    data = make_tiny_dataset(folder / "data", num_train=2, num_val=3)
    make_bucket(data, bucket)
    run = run_in(bucket)
    record = run.record()
    pinned = record.dataset.model_copy(update={"name": "tiny", "digest": read_version(run.store, "tiny").digest})
    run.write("run.json", record.model_copy(update={"dataset": pinned}), overwrite=True)
    return bucket
