"""A bucket with a dataset, and the runs in it."""

import csv
import io
from pathlib import Path

from job.cli.app import main
from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.attempt_records import final_tensors


def make_bucket(data, location, dataset="tiny"):
    """Push images into a bucket, which is made if it is a folder; return its location."""
    if "://" not in str(location):
        Path(location).mkdir(exist_ok=True)
    assert main(["data", "push", str(data), "--dataset", dataset, "--bucket", str(location)]) == 0
    return str(location)


def run_in(bucket, name="zebra"):
    """Return a run of a bucket."""
    return Run(open_store(str(bucket)), name)


def tensors_of(bucket, name="zebra"):
    """Return the digests of a finished run's weights."""
    return final_tensors(run_in(bucket, name).final())


def rows_of(bucket, name="zebra"):
    """Return the rows of a run's results, without their time."""
    text = open_store(str(bucket)).read(f"runs/{name}/results.csv").decode()
    return [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(io.StringIO(text))]


def ends_of(bucket, name="zebra"):
    """Return the digests of a finished run's weights, and of all of its last state."""
    run = run_in(bucket, name)
    newest = checkpoint.read_manifest(run, checkpoint.committed(run)[-1])
    return tensors_of(bucket, name) | newest.metadata.digests
