"""Trainings of tests on a GPU: a recipe at a size, killed in the middle of accumulation and resumed."""

import io
from pathlib import Path

from job.runs import checkpoint
from job.training.files import STATE
from job.training.position import Position
from tests.support.bucket import run_in
from tests.support.cli_process import TIMEOUT_S, start_job, take_machine, wait_until

HELD_AT = 6
"""The batch, of six in an epoch, at which a training is held until its kill: four make an optimizer step, so that
moments exist and gradients of the fifth wait.
"""

COMMITTED = Position(0, HELD_AT - 1)

NUM_OPTIMIZER_STEPS = 3
"""In both epochs."""

SMALL_LOSS = ("--box", "0.0008", "--cls", "0.00005", "--dfl", "0.0002")
"""Gains that keep a model without weights from overflow: a scaler begins at 65,536, and leaves out each optimizer step
whose gradients overflow.
"""


def words_of(bucket, recipe, px, device, workers=None):
    """Return the words that train a recipe in a bucket, with a checkpoint after each batch; with its default of loader
    processes if none is given.
    """
    return (
        *("train", "--recipe", recipe, "--model", "yolo11n.yaml", "--epochs", "2", "--imgsz", px, "--batch", "4"),
        *("--nbs", "16", "--warmup-epochs", "0", "--close-mosaic", "1", "--plots", "false", "--device", device),
        *(
            *SMALL_LOSS,
            "--checkpoint-every",
            "0.001",
            "--run",
            "zebra",
            "--bucket",
            bucket,
            "--workdir",
            f"{bucket}-work",
        ),
        *(() if workers is None else ("--workers", workers)),
    )


def train(words, program="tests.support.fault_point_cli", point="", **environment):
    """Train to the end with a program that takes a point; return its exit code and what it said."""
    process = start_job(point, *words, program=program, **environment)
    said = process.communicate(timeout=TIMEOUT_S)[1]
    return process.returncode, said


def kill_and_resume(bucket, words, program="tests.support.fault_point_cli", **environment):
    """Kill a training once `COMMITTED` is committed, and resume it; return exit code and messages of the last."""
    held = Path(f"{bucket}-held")
    process = start_job(f"committed step:{HELD_AT}:hold", *words, program=program, TEST_HELD=held, **environment)
    wait_until(held.exists, process)
    wait_until(lambda: any(each.position == COMMITTED for each in checkpoint.committed(run_in(bucket))), process)
    take_machine(process)
    return train(words, program, **environment)


def num_optimizer_steps(run):
    """Return how many steps the optimizer has taken for each parameter, in the last checkpoint of a run."""
    import torch  # noqa: PLC0415 -- seconds that only these tests need

    from job.training.flat_tensors import unpacked  # noqa: PLC0415 -- imports torch

    newest = checkpoint.read_manifest(run, checkpoint.committed(run)[-1])
    (file,) = [each for each in newest.files if each.name == STATE]
    state = unpacked(torch.load(io.BytesIO(run.store.read(file.key)), weights_only=True))
    return [int(entry["step"]) for entry in state["optimizer"]["state"].values()]
