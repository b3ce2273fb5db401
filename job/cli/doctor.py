"""``job doctor``: checks whether this machine can train."""

from dataclasses import asdict

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption, JsonOption
from job.recipes.recipe import Profile, load_recipe
from job.runs.flags import WorkdirOption
from job.runs.request import WorkersOption
from job.session.doctor import examine, require_fitness
from job.storage.open_store import open_store


class DoctorOptions(BucketOption, WorkdirOption, WorkersOption, JsonOption):
    """Flags of ``job doctor``."""

    bucket: str | None = Field(
        None, description="gs://BUCKET/PREFIX or a folder; JOB_BUCKET if left out; without one it is not checked."
    )
    recipe: str | None = Field(None, description="Check memory of GPU and machine for this recipe too.")
    profile: Profile = Field("full", description="full or demo.")


@command(DoctorOptions, "job doctor --recipe A --bucket gs://my-bucket")
def doctor(options: DoctorOptions) -> None:
    """Print one line for each check."""
    recipe = load_recipe(options.recipe, options.profile) if options.recipe else None
    store = open_store(options.location) if options.location else None
    findings = examine(options.workdir, recipe, store, options.workers)
    options.print([asdict(finding) for finding in findings], map(str, findings))
    require_fitness(findings)
