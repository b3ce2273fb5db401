"""``job resume``: a run that is not finished, by its name alone."""

from job.cli.command import command
from job.cli.options import RunOptions
from job.cli.runs import require_run
from job.cli.train import launch_ranks
from job.runs.lineage import recorded_request
from job.runs.request import Execution
from job.runs.run import SUBMISSIONS


class ResumeOptions(Execution, RunOptions):
    """Flags of ``job resume``."""


@command(ResumeOptions, "job resume zebra --bucket gs://my-bucket")
def resume(options: ResumeOptions) -> None:
    """Continue a run from its last committed checkpoint, with the values of its record.

    A run that was submitted to the cloud continues there, as by `job supervise --resume`; any other one on this
    machine. Of a finished run it prints the result.

    Raises:
        JobError: As `session.train`, or as `job supervise`.
    """
    store = options.store()
    if store.list(f"runs/{options.run}/{SUBMISSIONS}"):
        from job.cli.supervise import SuperviseOptions, supervise

        given = {"run": options.run, "bucket": options.bucket, "resume": True, "notify": options.notify}
        supervise.function(SuperviseOptions.parse(given))
        return
    from job.session.train import train

    _, record = require_run(store, options.run)
    launch_ranks(options.device)
    train(store, recorded_request(record, options))
