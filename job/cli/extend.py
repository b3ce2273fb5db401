"""``job extend``: more epochs for a finished run, as a new run that continues its complete state."""

from typing import Annotated

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption
from job.cli.runs import require_run
from job.cli.train import launch_ranks
from job.recipes.arguments import MAX_COUNT
from job.runs.lineage import extended_request
from job.runs.request import Execution, RunName


class ExtendOptions(Execution, BucketOption):
    """Flags of ``job extend``."""

    positional = ("old",)

    old: str = Field(description="The run that is finished, or stopped early.")
    epochs: Annotated[int, Field(ge=1, le=MAX_COUNT)] = Field(
        description="The new total number of epochs; more than the run has."
    )
    run: RunName | None = Field(None, description="The new run's name; the next free name if left out.")


@command(ExtendOptions, "job extend zebra --epochs 150 --bucket gs://my-bucket")
def extend(options: ExtendOptions) -> None:
    """Train a run to a larger total number of epochs, as a new run.

    The new run begins with the complete state of the old one's last checkpoint; the old run is not changed. A run that
    stopped early and is extended to its planned number of epochs continues bit for bit as if it had not stopped. A
    complete run differs from a run planned with more epochs, since its learning rate had fallen. Patience begins anew.
    """
    from job.session.train import train

    store = options.store()
    _, record = require_run(store, options.old)
    request = extended_request(options.old, record, options.epochs, options.run, options)
    launch_ranks(options.device)
    train(store, request)
