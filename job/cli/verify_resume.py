"""``job verify-resume``: proves on this machine that killing a training changes no tensor."""

import random
import tempfile
from pathlib import Path
from typing import cast

from pydantic import Field, InstanceOf, model_validator

from job.cli.command import command
from job.cli.options import BucketOption
from job.datasets.prepare import find_dataset, pull_dataset
from job.datasets.synthetic import draw_demo_dataset
from job.errors import TrainingError
from job.recipes.recipe import Profile, Recipe
from job.runs.flags import Count, Seconds
from job.runs.request import TrainRequest
from job.session.preemption import PreemptionWatcher
from job.session.verify_resume import CHECKPOINT_EVERY_S, NUM_EPOCHS, num_images, train_for, verify_resume
from job.storage.workdir import require_writable
from job.text import counted

SHORT = {"epochs": str(NUM_EPOCHS), "close_mosaic": "1", "plots": "false"}


class VerifyResumeOptions(TrainRequest, BucketOption):
    """Flags of ``job verify-resume``."""

    left_out = frozenset(
        {"run", "weights", "checkpoint_every", "hang_after", "archive", "notify", "new_classes", "quarantine"}
    )

    bucket: str | None = Field(
        None,
        description="Takes real data from there, at full scale; JOB_BUCKET if left out. Without one, the synthetic "
        "data of the demo.",
    )
    profile: Profile = Field("demo", description="full or demo; full if there is a bucket.")
    recipe: InstanceOf[Recipe] = Field(
        cast("Recipe", None),
        validate_default=True,
        description="A name of `job recipes list`, or a path to a YAML file; A if left out.",
    )
    kills: Count = Field(5, description="How often the training is killed.")
    seconds: Seconds = Field(
        0.0, description="The shortest duration of the piece that is trained, without kills; 0 takes a few batches."
    )

    @model_validator(mode="before")
    @classmethod
    def _make_short(cls, given: dict[str, object]) -> dict[str, object]:
        arguments = given.get("arguments", {})
        has_bucket = BucketOption.parse({"bucket": given.get("bucket")}).location is not None
        return {
            "recipe": "A",
            "profile": "full" if has_bucket else "demo",
            "checkpoint_every": CHECKPOINT_EVERY_S,
            **given,
            "arguments": SHORT | arguments if isinstance(arguments, dict) else SHORT,
        }


@command(VerifyResumeOptions, "job verify-resume --recipe A --kills 3")
def verify(options: VerifyResumeOptions) -> None:
    """Train a piece twice, straight and killed, and compare every tensor.

    Prints PASS with the digests, or the first difference.
    """
    options.recipe.require_exact()
    require_writable(options.workdir)
    with (
        PreemptionWatcher(),  # SIGTERM and a closed terminal end the training, too
        tempfile.TemporaryDirectory(dir=options.workdir, prefix="verify-resume-") as scratch,
    ):
        data = _data(options, Path(scratch))
        piece, took_s = train_for(options, data, Path(scratch), options.seconds)
        num_steps = len(piece.trace("straight"))
        print(f"recipe {options.recipe.name}, profile {options.recipe.profile}, {counted(options.workers, 'worker')}")
        steps, epochs = counted(num_steps, "step"), counted(options.recipe.train["epochs"], "epoch")
        print(f"straight   {steps} in {epochs}, {took_s:.0f} s")
        verdict = verify_resume(piece, options.kills, seed=random.SystemRandom().randrange(2**32))
    kills = counted(len(verdict.killed_after), "time")
    print(f"killed     {kills}, after step {', '.join(map(str, verdict.killed_after))}")
    print(f"resumed    {counted(len(verdict.resumed_at), 'time')}, from {', '.join(verdict.resumed_at)}")
    if verdict.differences:
        raise TrainingError(
            "verification: FAIL, a training that is killed does not end like one that is not; do not rely on resuming "
            "on this machine, and report this",
            verdict.differences,
        )
    for group, digest in verdict.digests.items():
        print(f"{group:10} {digest}")
    print("PASS       every tensor of weights, EMA and optimizer is equal")


def _data(options: VerifyResumeOptions, scratch: Path) -> Path:
    if options.location is None:
        draw_demo_dataset(scratch / "data", num_images=None if options.seconds else num_images(options))
        return scratch / "data"
    store = options.store()
    return pull_dataset(store, find_dataset(store, options.dataset), options.workdir).folder
