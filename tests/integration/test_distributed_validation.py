"""A validation that several processes share: bit for bit that of one."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from job.training.distributed import ProcessGroup
from tests.integration.test_distributed import free_port
from tests.support.cli_process import TIMEOUT_S, surroundings
from tests.support.tiny_dataset import make_tiny_dataset

VALIDATE = """
import json, os, sys
from dataclasses import replace
from pathlib import Path

from job.training.distributed import ProcessGroup
from job.training.isolation import isolate_ultralytics

data, folder, batch, workers, tiles = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
group = ProcessGroup.join(bool)
isolate_ultralytics(folder / "settings")

import torch
from matplotlib.figure import Figure
from job.recipes.arguments import DEFAULTS
from job.training.loop import LOSSES, Training
from tests.support.red_squares import RedSquares
from tests.support.tiny_training import plan_tiny_training

Figure.savefig = lambda *_, **__: None  # plots are what counts confusions; to render them would take half of the time

class Finder(RedSquares):
    def __init__(self, rank):
        super().__init__()
        self.register_buffer("shift", torch.tensor([2.0 + 20 * rank]))

    def forward(self, pixels, **options):
        found, rest = super().forward(pixels, **options)
        found[:, :2] += self.shift
        return found, rest

    def loss(self, batch, _found):
        mean = batch["img"].mean((1, 2, 3)).sum() / 3
        return None, {name: mean * (1 + number) for number, name in enumerate(LOSSES)}

def validate(group, folder, batch):
    (folder / "run").mkdir(parents=True)
    asked = {"epochs": 1, "batch": batch, "imgsz": 64, "plots": True, "tiles": tiles, "val_tiles": tiles > 0}
    yaml = data / "data.yaml"
    plan = plan_tiny_training(folder / "run", yaml, DEFAULTS | asked, workers, architecture="tiny.yaml")
    training = Training(replace(plan, group=group))
    training.trainer.ema.ema = Finder(group.rank)
    training.trainer.validator.args.plots = True
    row, evaluation = training._evaluate(0)
    validator = training.trainer.validator
    (folder / "seen.json").write_text(json.dumps({
        "row": row,
        "evaluation": json.loads(evaluation),
        "confusions": validator.confusion_matrix.matrix.tolist(),
        "images": validator.metrics.box.image_metrics,
        "seen": validator.seen,
        "validated_here": len(list(training.trainer.test_loader.batch_sampler.sampler.sampler)),
    }, sort_keys=True))
    training.trainer.shut_loaders()

validate(group, folder, batch)
group.leave()
if group.is_rank_zero:
    validate(ProcessGroup(), folder / "alone", batch // group.size)
sys.stdout.flush()
os._exit(0)
"""
"""Validates as one of the processes, with a model whose buffers differ in each, and writes what it has seen; the first
one then validates alone, with batches of the same size, since most of a process of its own would be imports.
"""


@pytest.fixture
def draw(tmp_path):
    """A function that draws a dataset of pictures of several shapes with red squares, not all of which can be found."""

    def draw(num_pictures):
        data = make_tiny_dataset(tmp_path / "data", num_train=6, num_val=num_pictures)
        rng = np.random.default_rng(0)
        for number, image in enumerate(sorted((data / "images/val").iterdir())):
            height, width = 96 + 32 * (number % 3), 160
            picture = np.full((height, width, 3), 10 * number, np.uint8)
            lines = []
            for left in (8, 64, 120):
                size, top = int(rng.integers(5, 30)), int(rng.integers(0, 60))
                cv2.rectangle(picture, (left, top), (left + size - 1, top + size - 1), (0, 0, 255), -1)
                box = (left + size / 2) / width, (top + size / 2) / height, size / width, size / height
                lines.append(" ".join(map(str, (0, *box))))
            cv2.imwrite(str(image.with_suffix(".png")), picture)
            image.unlink()
            (data / "labels/val" / f"{image.stem}.txt").write_text("\n".join(lines) + "\n")
        yaml = data / "data.yaml"
        yaml.write_text(f"path: {data}\n{yaml.read_text()}")
        return data

    return draw


def validated(data, folder, num_processes, workers, tiles):
    """Return what a process alone has seen, and what each of several has seen together."""
    words = [sys.executable, "-c", VALIDATE, data]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": num_processes, "OMP_NUM_THREADS": 1}
    folders = [folder / f"{rank} of {num_processes}" for rank in range(num_processes)]
    processes = [
        subprocess.Popen(
            [*words, *map(str, (here, 2 * num_processes, workers, tiles))],
            env=surroundings(place | {"RANK": rank, "LOCAL_RANK": rank}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, here in enumerate(folders)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * num_processes, said
    alone, *together = (json.loads((here / "seen.json").read_text()) for here in (folders[0] / "alone", *folders))
    return alone, together


@pytest.mark.parametrize(
    ("num_pictures", "num_processes", "workers", "tiles", "shares"),
    [(11, 2, 0, 0, [8, 3]), (7, 3, 1, 0, [4, 3, 0]), (5, 2, 0, 64, [4, 1])],
)
def test_several_processes_validate_together_as_one_does(
    draw, tmp_path, num_pictures, num_processes, workers, tiles, shares
):
    """All have the metrics, losses, detections and confusions of one process with the same batches; the buffers are
    those of the first, and whole batches are shared, also where there are fewer than processes.
    """
    data = draw(num_pictures)
    alone, together = validated(data, tmp_path, num_processes, workers, tiles)
    assert alone.pop("validated_here") == num_pictures
    assert [seen.pop("validated_here") for seen in together] == shares
    assert together == [alone] * num_processes
    assert 0 < alone["row"]["metrics/recall(B)"] < 1
    assert len({value for name, value in alone["row"].items() if "loss" in name}) == 3


@pytest.mark.parametrize(("num_images", "size"), [(1, 3), (9, 2), (40, 4), (41, 8)])
def test_whole_batches_are_shared(confined, num_images, size):
    """Each image has one rank, in order, and no batch of eight has two."""
    from job.training.distributed_validation import share_of  # noqa: PLC0415 -- imports Ultralytics

    shares = [share_of(num_images, 8, ProcessGroup(rank, size)) for rank in range(size)]
    assert [image for share in shares for image in share] == list(range(num_images))
    assert all(share.start % 8 == 0 for share in shares if share)
