"""``job doctor``: whether this machine can train."""

import json as json_format
from dataclasses import asdict
from pathlib import Path

from job.cli.options import bucket_location, read_flag, read_profile
from job.cli.train import read_workers
from job.recipes.recipe import load_recipe
from job.session.doctor import examine, summarise
from job.storage.open_store import open_store


def run_doctor(
    *, recipe: str | None, profile: str, bucket: str | None, workers: str | None, workdir: str, json: str
) -> None:
    """Print one line for each check.

    Raises:
        MachineError: If this machine is unfit.
        JobError: If a flag, the recipe or the bucket's name is wrong.
    """
    as_json = read_flag(json, "json")
    loaded = load_recipe(recipe, read_profile(profile)) if recipe else None
    location = bucket_location(bucket)
    store = open_store(location) if location else None
    findings = examine(Path(workdir).resolve(), loaded, store, read_workers(workers))
    if as_json:
        print(json_format.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(map(str, findings)))
    summarise(findings)
