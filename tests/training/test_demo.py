"""The demo, as a newcomer starts it on an empty folder."""

import json

import pytest

from job.run import Run, list_runs
from job.store import open_store
from tests.support.command import job


@pytest.mark.timeout(1500)  # a whole training, twice
def test_the_demo_learns_and_its_recipe_improves_on_the_baseline(tmp_path):
    """On an empty folder the demo trains a baseline of F1 0.3 or more, and recipe A betters it by 0.05 or more."""
    bucket = tmp_path / "bucket"
    done = job("train", "--recipe", "A", "--profile", "demo", "--bucket", bucket, OMP_NUM_THREADS=2, timeout_s=1400)
    assert done.returncode == 0, done.stderr
    store = open_store(str(bucket))
    assert list_runs(store) == ["yolov11_wildlife", "yolov11_wildlife2"]
    base, improved = (Run(store, name).final()["comparison"] for name in list_runs(store))
    assert base["after"]["f1"] >= 0.3
    assert improved["before"] == base["after"]
    assert improved["change"]["f1"] >= 0.05
    assert "expected at full scale" in done.stdout
    record = json.loads(store.read("runs/yolov11_wildlife2/run.json"))
    assert record["request"]["profile"] == "demo"
    assert record["start"]["point"]["run"] == "yolov11_wildlife"
    assert record["facts"]["num_threads"] == 2  # not what Ultralytics sets it to when the first run imports it
