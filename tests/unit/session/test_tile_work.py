"""The hours of a training on tiles and of recipe A, as finished runs of the bucket tell."""

import pytest

from job.recipes.recipe import load_recipe
from job.runs.request import TrainRequest
from job.session.tile_work import describe_hours
from job.storage.local import FolderStore
from tests.support.bucket_records import put_recorded, recorded

MACHINE = "Linux x86_64, 8 cores"

ON_WHOLE = recorded("A", run="plain", epoch_s=90.0)
OTHER_TILES = recorded("T", run="other", epoch_s=50.0, tiles=512)
ON_TILES = recorded("T", run="tiled", epoch_s=180.0)

A = f"recipe A: about 2 h 00 min in all, as run plain, 1 epoch on {MACHINE}"


@pytest.mark.parametrize(
    ("runs", "lines"),
    [
        ([], []),
        ([OTHER_TILES], []),
        ([ON_WHOLE, OTHER_TILES], ["tiles: about 3 h 00 min in all, by their pixels at the pace of run plain", A]),
        ([ON_WHOLE, ON_TILES], [f"tiles: about 4 h 00 min in all, as run tiled, 1 epoch on {MACHINE}", A]),
    ],
    ids=["no run", "other tiles alone", "whole pictures", "both"],
)
def test_hours_are_those_of_finished_runs(tmp_path, runs, lines):
    """80 epochs at the pace of a run on such tiles, else by 1.5 times the pixels of recipe A; none without a run."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    for run in runs:
        put_recorded(store, run)
    request = TrainRequest.parse({"recipe": "T", "checkpoint_every": "0"})
    assert describe_hours(store, request, "wildlife", load_recipe("A"), 1.5) == lines
