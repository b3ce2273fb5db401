"""``job predict`` before any model is loaded."""

import pytest

from job.cli.app import main
from tests.support.cli_process import job
from tests.support.predicting import make_finished_run, make_flight, untrained_run


@pytest.fixture
def weights(tmp_path):
    """A file in the place of weights."""
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def flight(tmp_path):
    """A folder of pictures."""
    return make_flight(tmp_path / "flight", 3)


def refused(capsys, *words):
    """Return the exit code and the message of a prediction that is refused."""
    code = main(["predict", *map(str, words)])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


def test_a_run_must_be_finished(capsys, flight, tmp_path):
    """The best weights of an unfinished run may still change."""
    untrained_run(tmp_path / "bucket")
    code, message = refused(capsys, "zebra", flight, "--out", tmp_path / "out", "--bucket", tmp_path / "bucket")
    assert (code, "run zebra: is not finished" in message) == (65, True)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_none_is_refused(capsys, flight, tmp_path, weights):
    """A misspelt run is named with the one that was meant."""
    bucket = make_finished_run(tmp_path / "bucket", weights)
    code, message = refused(capsys, "zebar", flight, "--out", tmp_path / "out", "--bucket", bucket)
    assert (code, "did you mean 'zebra'?" in message) == (65, True)


@pytest.mark.parametrize("name", [".", "found", "north/found"])
def test_results_do_not_go_into_the_source(capsys, flight, tmp_path, weights, name):
    """A place within the folder of pictures is refused, and nothing is made there."""
    bucket = make_finished_run(tmp_path / "bucket", weights)
    before = sorted(flight.rglob("*"))
    code, message = refused(capsys, "zebra", flight, "--out", flight / name, "--bucket", bucket)
    assert (code, "--out: lies in the source" in message) == (2, True)
    assert sorted(flight.rglob("*")) == before


def test_a_workdir_that_cannot_be_made_is_refused_before_the_device_is_looked_up(capsys, flight, tmp_path, weights):
    """Ultralytics, which knows the devices, needs a folder; no place is made for results."""
    bucket = make_finished_run(tmp_path / "bucket", weights)
    words = ("zebra", flight, "--out", tmp_path / "out", "--conf", "0.5", "--bucket", bucket)
    code, message = refused(capsys, *words, "--device", "0", "--workdir", "/proc/nowhere")
    assert (code, "pass a --workdir that this user can write to" in message) == (78, True)
    assert not (tmp_path / "out").exists()


def test_an_overlap_of_no_tiles_is_refused(capsys, flight, tmp_path, weights):
    """It would have no effect; no place is made for results."""
    bucket = make_finished_run(tmp_path / "bucket", weights)
    code, message = refused(capsys, "zebra", flight, "--out", tmp_path / "out", "--bucket", bucket, "--overlap", "0.5")
    assert (code, "--overlap: there are no tiles, got 0.5; pass --tiles as well" in message) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_here_is_refused_before_anything_is_written(flight, tmp_path, weights):
    """Neither a name of none nor the number of a GPU that the machine does not have leaves a place for results."""
    bucket = make_finished_run(tmp_path / "bucket", weights)
    places = {"predict": ("predict", "zebra", flight), "audit": ("audit", "zebra")}
    for device, (name, words) in zip(("foo", "97"), places.items(), strict=True):
        where = ("--bucket", bucket, "--workdir", tmp_path / "work", "--conf", "0.3")
        done = job(*words, "--out", tmp_path / name, "--device", device, *where)
        assert (done.returncode, f"device '{device}': " in done.stderr) == (78, True), done.stderr
        assert "pass another --device" in done.stderr
        assert not (tmp_path / name).exists()


def test_a_source_without_pictures_is_refused(capsys, tmp_path, weights):
    """An empty folder ends with 65, and no place is made for results."""
    bucket = make_finished_run(tmp_path / "bucket", weights)
    (tmp_path / "empty").mkdir()
    code, message = refused(capsys, "zebra", tmp_path / "empty", "--out", tmp_path / "out", "--bucket", bucket)
    assert (code, "has no pictures" in message) == (65, True)
    assert not (tmp_path / "out").exists()


def test_weights_that_were_replaced_are_refused(capsys, flight, tmp_path, weights):
    """Weights that are not those of the run's record are not used, and nothing is predicted with them."""
    bucket = make_finished_run(tmp_path / "bucket", weights)
    (tmp_path / "bucket/runs/zebra/weights/best.pt").write_bytes(b"others")
    code, message = refused(capsys, "zebra", flight, "--out", tmp_path / "out", "--bucket", bucket)
    assert code == 65
    assert "is not what run zebra ended with" in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".store", "predict.json"]
