"""A bucket with a dataset, filled as a person fills it."""

from pathlib import Path

from job.cli.app import main


def make_bucket(data, location, dataset="tiny"):
    """Push images into a bucket, which is made if it is a folder; return where it is."""
    if "://" not in str(location):
        Path(location).mkdir(exist_ok=True)
    assert main(["data", "push", str(data), "--dataset", dataset, "--bucket", str(location)]) == 0
    return str(location)
