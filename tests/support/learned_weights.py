"""Weights that detect something, so that metrics are not 0."""

from pathlib import Path

from tests.support.bucket import make_bucket
from tests.support.cli_process import job
from tests.support.tiny_dataset import make_tiny_dataset

LESSON = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "3", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "4", "--optimizer", "AdamW", "--lr0", "0.002", "--warmup-epochs", "0", "--mosaic", "0"),
    *("--plots", "false", "--workers", "0", "--checkpoint-every", "0", "--run", "lesson"),
)
"""Ninety steps, which the running means of batch norm need."""


def learn(folder: Path) -> Path:
    """Train the smallest model on other images of the tiny dataset's sort, and return the file of its weights."""
    data = make_tiny_dataset(folder / "lesson", num_train=120, num_val=4, seed=1)
    bucket = make_bucket(data, folder / "lessons")
    done = job(*LESSON, "--bucket", bucket, "--workdir", folder / "lesson-work")
    assert done.returncode == 0, done.stderr
    return Path(bucket) / "runs" / "lesson" / "weights" / "best.pt"
