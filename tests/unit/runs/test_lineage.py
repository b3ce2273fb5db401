"""Own weights: the best on the same data and of the same size, and the reason of the choice."""

import dataclasses
import hashlib
import json

import pytest

from job.errors import CorruptObjectError, RunConflictError, UsageError, WeightsError
from job.recipes.recipe import Start
from job.runs import checkpoint
from job.runs.lineage import fetch_end, fetch_start, find_start, recorded_request
from job.runs.records import CheckpointId, InitialWeights, WeightsDigests
from job.runs.request import Execution, TrainRequest
from job.runs.run import Run
from job.storage.local import FolderStore
from tests.support.bucket_records import put_recorded, recorded, starting_from
from tests.unit.runs.test_run import record


def train_request(recipe="A", **changes):
    """Return a request for a recipe on the data set wildlife."""
    return TrainRequest.parse({"recipe": recipe, "dataset": "wildlife", **changes})


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


def put(store, number, f1, recipe="base", *, source="weights/yolo11s.pt", origin=None, **more):
    """Put a finished run of the family into the bucket, each later than the ones before."""
    name = f"yolov11_wildlife{number if number > 1 else ''}"
    summary = recorded(recipe, run=name, course=(f1,), finished_at=f"2026-11-{number:02}T12:00:00.000+00:00", **more)
    point = {"kind": "pretrained", "source": source, "architecture": None, "run": origin}
    put_recorded(
        store,
        dataclasses.replace(summary, record=starting_from(summary.record, point)),
    )
    return name


def chosen(store, recipe="A", **changes):
    """Return the run whose weights a recipe starts from, and why."""
    point = find_start(store, train_request(recipe, **changes), None)
    assert point.source == f"runs/{point.run}/weights/best.pt"
    return point.run, point.why


def test_the_best_run_is_taken_and_not_the_newest(store):
    """A newer run that came out worse is skipped, and the message names the run, its F1 and the way to another."""
    put(store, 1, 0.58)
    put(store, 2, 0.66, "A", source="runs/yolov11_wildlife/weights/best.pt", origin="yolov11_wildlife")
    put(store, 3, 0.0)
    assert chosen(store) == (
        "yolov11_wildlife2",
        "run yolov11_wildlife2, F1 66.0%, the best of 3 finished on wildlife; --weights names another",
    )


def test_a_family_whose_name_is_part_of_another_is_another(store):
    """A run of the family `wildlife` is none of `yolov11_wildlife`."""
    put(store, 1, 0.58)
    summary = recorded("base", run="wildlife3", course=(0.9,))
    put_recorded(store, summary)
    assert chosen(store)[0] == "yolov11_wildlife"


def test_of_equal_runs_the_newer_is_taken(store):
    """F1 decides, and where it is the same, age."""
    put(store, 1, 0.58)
    put(store, 2, 0.58)
    assert chosen(store)[0] == "yolov11_wildlife2"


@pytest.mark.parametrize(
    "source", ["weights/yolo11n.pt", "weights/yolo11m.pt", "runs/yolov11_wildlife2/weights/best.pt"]
)
def test_another_model_is_passed_over_however_good_it_is(store, source):
    """A run whose weights began as another model than that of base is no start, even two runs later; this is logged."""
    put(store, 1, 0.58)
    put(store, 2, 0.7, source="weights/yolo11m.pt")
    put(store, 3, 0.8, source=source)
    run, why = chosen(store)
    assert (run, "without 2 of another model than yolo11s" in why) == ("yolov11_wildlife", True)


def test_where_every_run_has_another_model_the_best_of_them_is_taken(store):
    """Where all runs are of a larger model, the best of them is the start."""
    put(store, 1, 0.7, source="weights/yolo11m.pt")
    put(store, 2, 0.6, source="weights/yolo11m.pt")
    assert chosen(store)[0] == "yolov11_wildlife"


def test_weights_of_unknown_origin_count(store):
    """A run that began with a file from elsewhere may be of any size, and is not passed over."""
    put(store, 1, 0.58)
    put(store, 2, 0.66, source="/home/user/best.pt")
    assert chosen(store)[0] == "yolov11_wildlife2"


def test_only_runs_on_the_same_data_are_compared(store):
    """A higher F1 on other data is no measure; where none is on the same data, the newest is taken, which is logged."""
    put(store, 1, 0.58)
    put(store, 2, 0.9, dataset="zoo")
    put(store, 3, 0.8, dataset="zoo")
    assert chosen(store)[0] == "yolov11_wildlife"
    run, why = chosen(store, dataset="farm")
    assert (run, why.partition(",")[2]) == (
        "yolov11_wildlife3",
        " the newest of 3 finished, none of them on farm; --weights names another",
    )


def test_only_runs_on_the_newest_validation_set_are_compared(store):
    """F1 of before the validation pictures were changed is no measure beside one of after."""
    put(store, 1, 0.7, val="w" * 64)
    put(store, 2, 0.6)
    put(store, 3, 0.58)
    assert chosen(store)[0] == "yolov11_wildlife2"


def test_a_recipe_that_was_typed_out_is_that_recipe(store):
    """C starts from the best run of A, and one that was trained with the flags of A, called otherwise, is one."""
    put(store, 1, 0.58)
    with pytest.raises(WeightsError, match="no finished run of recipe A"):
        find_start(store, train_request("C"), None)
    typed = recorded("A", run="yolov11_wildlife2", course=(0.66,))
    request = {**typed.record.request, "recipe": "continue", "start": "yolov11_wildlife"}
    put_recorded(store, dataclasses.replace(typed, record=typed.record.model_copy(update={"request": request})))
    assert chosen(store, "C")[0] == "yolov11_wildlife2"


def test_runs_at_demo_scale_are_no_start_at_full_scale(store):
    """Profiles do not mix."""
    put(store, 1, 0.58)
    put(store, 2, 0.9, profile="demo")
    assert chosen(store)[0] == "yolov11_wildlife"


def test_what_is_named_is_taken(store):
    """With --weights nothing is chosen, and there is no message."""
    put(store, 1, 0.58)
    put(store, 2, 0.66)
    point = find_start(store, train_request(weights="yolov11_wildlife"), None)
    assert (point.run, point.why) == ("yolov11_wildlife", None)


def test_the_weights_of_an_unfinished_run_are_not_taken_by_its_name(store):
    """Weights of an unfinished run are taken only by the name of their file."""
    record = dataclasses.replace(recorded("base", run="zebra"), final=None)
    put_recorded(store, record)
    with pytest.raises(WeightsError, match="that run is not finished"):
        find_start(store, train_request(weights="zebra"), None)


@pytest.fixture
def weights(store):
    """A finished run with weights in the bucket, as the start of another one."""
    summary = recorded("base", run="zebra")
    digests = {"best.pt": WeightsDigests(sha256=hashlib.sha256(b"weights").hexdigest())}
    final = summary.final.model_copy(update={"weights": digests})
    put_recorded(store, dataclasses.replace(summary, final=final))
    store.put("runs/zebra/weights/best.pt", b"weights")
    return InitialWeights("own", "runs/zebra/weights/best.pt", None, run="zebra")


def test_start_weights_are_those_of_the_record(store, weights, tmp_path):
    """A resumed run reads the initial weights that its record names, and refuses others."""
    path, point = fetch_start(store, weights, tmp_path)
    assert (path.read_bytes(), point.sha256) == (b"weights", hashlib.sha256(b"weights").hexdigest())
    assert fetch_start(store, point, tmp_path)[1] == point
    other = dataclasses.replace(point, run=None, sha256=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(WeightsError, match="is not the file that the run started from"):
        fetch_start(store, other, tmp_path)


@pytest.mark.parametrize("missing", [True, False])
def test_weights_of_a_run_are_those_that_it_ended_with(store, weights, tmp_path, caplog, missing):
    """Where the published best weights are gone or replaced, those of the run's checkpoint are taken; without a
    checkpoint that has them they are refused.
    """
    store.put("runs/zebra/weights/best.pt", b"other", overwrite=True)
    if missing:
        store.delete("runs/zebra/weights/best.pt")
    with pytest.raises(WeightsError, match="is missing, or is not what run zebra ended with"):
        fetch_start(store, weights, tmp_path / "fetched")
    (tmp_path / "best.pt").write_bytes(b"weights")
    checkpoint.commit(Run(store, "zebra"), CheckpointId(3, 0, 1), [tmp_path / "best.pt"], {}, None)
    path, point = fetch_start(store, weights, tmp_path / "fetched")
    assert (path.read_bytes(), point.sha256) == (b"weights", hashlib.sha256(b"weights").hexdigest())
    assert "its checkpoint is taken" in caplog.text


DAMAGED = {
    "final.json": [
        b"", b"[]", {"weights": {}}, {"weights": {"best.pt": {}}}, {"finished_at": "2026-11-02T12:00:00"},
        {"comparison": {"after": {"f1": float("nan")}}},
    ],
    "run.json": [b"", b"[]"],
}  # fmt: skip
"""By the name of a record, bytes in its place, or what differs from a sound one."""


@pytest.mark.parametrize(("name", "content"), [(name, each) for name in DAMAGED for each in DAMAGED[name]])
def test_a_damaged_record_is_no_reason_that_another_run_cannot_start(store, caplog, name, content):
    """Where the record of the best run, or that of its end, is damaged, another run is chosen, and it is named."""
    put(store, 1, 0.58)
    put(store, 2, 0.66, "A")
    key = f"runs/yolov11_wildlife2/{name}"
    damaged = content if isinstance(content, bytes) else json.dumps(json.loads(store.read(key)) | content).encode()
    store.put(key, damaged, overwrite=True)
    assert chosen(store)[0] == "yolov11_wildlife"
    if name == "final.json":
        assert "yolov11_wildlife2" in caplog.text
        assert "passed over as start weights" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[]", {"start": {}}, {"start": {"point": {}}}])
def test_a_damaged_record_in_a_line_of_weights_leaves_its_model_unknown(store, caplog, content):
    """The run that the best one started from cannot be read: the best one is taken, and the other is named."""
    put(store, 1, 0.58)
    put(store, 2, 0.66, "A", source="runs/yolov11_wildlife/weights/best.pt", origin="yolov11_wildlife")
    key = "runs/yolov11_wildlife/run.json"
    damaged = content if isinstance(content, bytes) else json.dumps(json.loads(store.read(key)) | content).encode()
    store.put(key, damaged, overwrite=True)
    assert chosen(store)[0] == "yolov11_wildlife2"
    assert "yolov11_wildlife/run.json" in caplog.text or "run yolov11_wildlife:" in caplog.text


def test_named_weights_of_a_run_with_a_damaged_end_are_refused_with_a_reason(store, tmp_path):
    """Weights are refused where the final record of their run has no digest of them."""
    run = put(store, 1, 0.58)
    key = f"runs/{run}/final.json"
    store.put(key, json.dumps(json.loads(store.read(key)) | {"weights": {}}).encode(), overwrite=True)
    store.put(f"runs/{run}/weights/best.pt", b"weights")
    with pytest.raises(
        CorruptObjectError,
        match=f"runs/{run}/final.json: has another form.*weights: lacks best.pt",
    ):
        fetch_start(store, find_start(store, train_request(weights=run), None), tmp_path)


def ended(store, tmp_path, *, final=True):
    """Put a run into the bucket whose last checkpoint, after one epoch, is there."""
    summary = recorded("base", run="zebra")
    put_recorded(store, summary if final else dataclasses.replace(summary, final=None))
    (tmp_path / "state.pt").write_bytes(b"state")
    checkpoint.commit(Run(store, "zebra"), CheckpointId(1, 0, 1), [tmp_path / "state.pt"], {}, None)


def extending(epochs):
    """Return a request to extend the run zebra."""
    asked = train_request(arguments={"epochs": epochs})
    return asked.model_copy(update={"recipe": dataclasses.replace(asked.recipe, start=Start("end", "zebra"))})


def test_the_end_of_a_run_is_gone_on_from_with_more_epochs_alone(store, tmp_path):
    """As many epochs as a run has trained are none more, and its end is the state that the record names."""
    ended(store, tmp_path)
    with pytest.raises(UsageError, match="is the new total, and run zebra has trained 1"):
        find_start(store, extending("1"), None)
    point = find_start(store, extending("2"), None)
    (tmp_path / "end").mkdir()
    assert fetch_end(store, point, tmp_path / "end").epoch == 1
    with pytest.raises(CorruptObjectError, match="is not the state that the run started from"):
        fetch_end(store, dataclasses.replace(point, sha256="0" * 64), tmp_path / "end")


def test_an_unfinished_run_is_not_extended(store, tmp_path):
    """An unfinished run is not extended, however many checkpoints it has."""
    ended(store, tmp_path, final=False)
    with pytest.raises(RunConflictError, match="run zebra: is not finished"):
        find_start(store, extending("2"), None)


@pytest.mark.parametrize(
    "words",
    [
        {"recipe": "A"},
        {"recipe": "base", "arguments": {"epochs": "7", "lr0": "0.001"}, "quarantine": True},
        {"recipe": "base", "model": "yolo11n.yaml", "profile": "demo"},
        {"recipe": "T", "weights": "zebra"},
        {"recipe": "A", "weights": "runs/zebra/weights/best.pt", "model": "yolo11m.yaml", "new_classes": True},
    ],
)
def test_the_request_of_a_record_is_that_of_its_run(words):
    """A run is resumed by its record alone, with the values of the command that started it."""
    asked = TrainRequest.parse(words)
    identity = asked.identity("wildlife")
    again = recorded_request(record("horse", **identity), Execution(device="cpu", workers=3))
    assert again.identity(again.dataset) == identity
    assert (again.run, again.device, again.workers) == ("horse", "cpu", 3)
