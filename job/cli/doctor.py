"""``job doctor``: checks whether this machine can train."""

import json
from dataclasses import asdict

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption, JsonOption
from job.recipes.recipe import load_recipe
from job.runs.flags import WorkdirOption
from job.runs.request import WORKERS_HELP, ProfileName, Workers, default_workers
from job.session.doctor import examine, summarise
from job.storage.open_store import open_store


class DoctorOptions(BucketOption, WorkdirOption, JsonOption):
    """Flags of ``job doctor``."""

    bucket: str | None = Field(
        None, description="gs://BUCKET/PREFIX or a folder; JOB_BUCKET if left out; without one it is not checked."
    )
    recipe: str | None = Field(None, description="Check memory of GPU and machine for this recipe too.")
    profile: ProfileName = Field("full", description="full or demo.")
    workers: Workers = Field(default_factory=default_workers, description=WORKERS_HELP)


@command(DoctorOptions, "job doctor --recipe A --bucket gs://my-bucket")
def doctor(options: DoctorOptions) -> None:
    """Print one line for each check.

    Raises:
        MachineError: If this machine is unfit.
        JobError: If the recipe or the bucket's name is wrong.
    """
    recipe = load_recipe(options.recipe, options.profile) if options.recipe else None
    store = open_store(options.location) if options.location else None
    findings = examine(options.workdir, recipe, store, options.workers)
    if options.as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(map(str, findings)))
    summarise(findings)
