"""Predictions: killed, shared by machines, in a bucket; the same bytes as an undisturbed one."""

import csv
import io
import json
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.support.cli_process import job, kill, messages, start_job, wait_until
from tests.support.learned_weights import learn
from tests.support.megadetector_format import Results
from tests.support.predicting import (
    RESULTS,
    add_odd_pictures,
    copy_folder,
    make_finished_run,
    make_flight,
    results_of,
)

PREDICT_ANY = ("predict", "zebra", "--conf", "0.001", "--max-det", "20", "--device", "cpu")
PREDICT = (*PREDICT_ANY, "--shard", "4")

NUM_SHARDS = 8
"""Of twenty pictures and twelve odd ones."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that find something."""
    return learn(tmp_path_factory.mktemp("lesson"))


@pytest.fixture(scope="module")
def bucket(weights, tmp_path_factory):
    """A bucket with a finished run."""
    return make_finished_run(tmp_path_factory.mktemp("runs") / "bucket", weights)


@pytest.fixture(scope="module")
def flight(tmp_path_factory):
    """A folder of pictures, some of which cannot be read."""
    folder = make_flight(tmp_path_factory.mktemp("flight") / "flight")
    add_odd_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(bucket, flight, tmp_path_factory):
    """Every object of an undisturbed prediction."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = job(*PREDICT, flight, "--out", out, "--bucket", bucket, "--draw")
    assert done.returncode == 0, done.stderr
    return results_of(out)


def test_every_picture_counts_once_and_unreadable_ones_are_listed(undisturbed, flight):
    """Each picture has one row; those that cannot be read have empty counts, a failure, and stop nothing."""
    rows = list(csv.DictReader(io.StringIO(undisturbed["counts.csv"].decode())))
    names = sorted(path.relative_to(flight).as_posix() for path in flight.rglob("*.*") if path.suffix != ".txt")
    assert [row["picture"] for row in rows] == names
    content = json.loads(undisturbed["detections.json"])
    Results.model_validate(content)
    failures = {image["file"]: image["failure"] for image in content["images"]}
    broken = {f"odd/{name}" for name in ("cut.jpg", "text.jpg", "empty.png", "huge.png", "gone.jpg")}
    assert {name for name, failure in failures.items() if failure} == broken
    assert all((row["animal"] == "") == (row["picture"] in broken) for row in rows)
    total = sum(int(row["animal"] or 0) + int(row["bird"] or 0) for row in rows)
    detections = list(csv.DictReader(io.StringIO(undisturbed["detections.csv"].decode())))
    assert total == len(detections) == sum(len(image["detections"] or []) for image in content["images"])
    assert total > 20
    drawn = {key.removeprefix("drawn/").removesuffix(".jpg") for key in undisturbed if key.startswith("drawn/")}
    assert drawn == set(names) - broken


def test_a_prediction_that_is_killed_ends_with_the_same_bytes(bucket, flight, undisturbed, tmp_path):
    """Killed within a picture, at the put of a shard, and behind the final files, it ends as an undisturbed one."""
    out = tmp_path / "out"
    command = (*PREDICT, flight, "--out", out, "--bucket", bucket, "--draw")
    for point in ("picture:6:kill", "shard:3:kill", "final file:5:kill"):
        process = start_job(*command, at=point)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        assert "final.json" not in results_of(out)
    done = job(*command)
    assert done.returncode == 0, done.stderr
    assert results_of(out) == undisturbed


def test_a_notice_stops_it_after_the_picture_at_hand(bucket, flight, undisturbed, tmp_path):
    """SIGTERM ends it with 75 and no shard of its own half done; the same command goes on to the same bytes."""
    out = tmp_path / "out"
    command = (*PREDICT, flight, "--out", out, "--bucket", bucket, "--draw")
    process = start_job(*command, at="picture:7:TERM")
    _, errors = process.communicate()
    assert process.returncode == 75, errors
    assert "the same command goes on after the last committed shard" in messages(errors)[-1]
    assert "counts.csv" not in results_of(out)
    assert job(*command).returncode == 0
    assert results_of(out) == undisturbed


@pytest.mark.full
def test_a_prediction_that_hangs_is_ended(bucket, flight, tmp_path):
    """A picture that is never done shows where every thread stands, and the process ends with 75."""
    command = (*PREDICT, flight, "--out", tmp_path / "out", "--bucket", bucket, "--hang-after", "20")
    process = start_job(*command, at="picture:3:hold", TEST_HELD=tmp_path / "held")
    _, errors = process.communicate()
    assert process.returncode == 75, errors
    (text,) = [message for message in messages(errors) if "no picture was searched for 20 s" in message]
    assert "in hold" in text


@pytest.mark.full
def test_a_large_flight_survives_ten_kills_at_random(bucket, tmp_path):
    """Of 2,000 pictures and ten kills, each at a random number of committed shards and some moment later,
    each picture is in every table exactly once, and the files are those of an undisturbed prediction, byte for byte.
    """
    flight, chance = make_flight(tmp_path / "flight", 2000), random.SystemRandom()
    command = (*PREDICT_ANY, flight, "--shard", "20", "--imgsz", "32", "--bucket", bucket, "--out")
    assert job(*command, tmp_path / "undisturbed").returncode == 0
    undisturbed, out = results_of(tmp_path / "undisturbed"), tmp_path / "out"
    for num_shards in sorted(chance.sample(range(80), 10)):
        process = start_job(*command, out)
        wait_until(lambda num=num_shards: len(list((out / "shards").glob("*"))) >= num, process)
        time.sleep(chance.uniform(0, 0.3))  # the time of a shard or two; twenty are left
        kill(process)
        assert process.returncode == -signal.SIGKILL
    assert job(*command, out).returncode == 0
    assert results_of(out) == undisturbed
    names = sorted(path.relative_to(flight).as_posix() for path in flight.rglob("*.jpg"))
    assert len(names) == 2000
    assert [row["picture"] for row in csv.DictReader(io.StringIO(undisturbed["counts.csv"].decode()))] == names
    assert [image["file"] for image in json.loads(undisturbed["detections.json"])["images"]] == names


def test_two_machines_share_a_prediction(bucket, flight, undisturbed, tmp_path):
    """Two processes at once on one place both end well, with the bytes of one."""
    out = tmp_path / "out"
    command = (*PREDICT, flight, "--out", out, "--bucket", bucket, "--draw")
    processes = [start_job(*command, "--workdir", tmp_path / f"work{number}") for number in range(2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert results_of(out) == undisturbed


def test_from_bucket_to_bucket(weights, flight, undisturbed, emulator, tmp_path, monkeypatch):
    """From one prefix of a bucket to another, killed once, it finds what it finds in a folder."""
    for name, value in emulator.env.items():
        monkeypatch.setenv(name, value)
    place = emulator.make_bucket()
    bucket = make_finished_run(tmp_path / "bucket", weights, f"{place}/wild")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in flight.rglob("*.*"):
        target = pictures / path.relative_to(flight)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes() if path.exists() else b"")
    copy_folder(pictures, f"{place}/flight")
    command = (*PREDICT, f"{place}/flight", "--out", f"{place}/found", "--bucket", bucket)
    process = start_job(*command, at="shard:4:kill")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = job(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_unreadable"] == 5
    found = results_of(f"{place}/found")
    assert [found[name] for name in ("counts.csv", "detections.csv")] == [
        undisturbed[name] for name in ("counts.csv", "detections.csv")
    ]


def test_boxes_are_those_of_stock_ultralytics(weights, bucket, flight, undisturbed, tmp_path):
    """Boxes, classes and confidences are those of `yolo predict` with the same arguments, in pixels."""
    script = (
        "import json, sys; from ultralytics import YOLO\n"
        "model = YOLO(sys.argv[1])\n"
        "found = {r.path: r.boxes.data.tolist() for r in model.predict(json.loads(sys.argv[2]), conf=0.001, imgsz=64, "
        "max_det=20, iou=0.7, device='cpu', verbose=False)}\n"
        "print(json.dumps(found))"
    )
    readable = [image["file"] for image in json.loads(undisturbed["detections.json"])["images"] if not image["failure"]]
    paths = [str(flight / name) for name in readable]
    done = subprocess.run(
        [sys.executable, "-c", script, str(weights), json.dumps(paths)], capture_output=True, text=True, check=True
    )
    stock = json.loads(done.stdout.splitlines()[-1])
    ours = {name: [] for name in readable}
    for row in csv.DictReader(io.StringIO(undisturbed["detections.csv"].decode())):
        ours[row["picture"]].append(
            (*(float(row[side]) for side in ("left", "top", "right", "bottom", "confidence")), row["class"])
        )
    names = ("animal", "bird")
    for name, path in zip(readable, paths, strict=True):
        expected = [
            (*(round(value, 2) for value in row[:4]), round(row[4], 5), names[int(row[5])]) for row in stock[path]
        ]
        assert len(ours[name]) == len(expected), name
        for mine, theirs in zip(ours[name], expected, strict=True):
            assert mine[:5] == pytest.approx(theirs[:5], abs=0.011), name
            assert mine[5] == theirs[5]


def test_other_arguments_are_refused(bucket, flight, tmp_path):
    """Another threshold or other pictures into the same place are refused with 65 and each difference."""
    out, pictures = tmp_path / "out", make_flight(tmp_path / "pictures", 5)
    command = ("predict", "zebra", pictures, "--out", out, "--bucket", bucket, "--device", "cpu")
    assert job(*command, "--conf", "0.05").returncode == 0
    before = results_of(out)
    again = job(*command, "--conf", "0.05")
    assert again.returncode == 0
    assert any("was finished before" in message for message in messages(again.stderr))
    assert "animal" in again.stdout
    other = job(*command, "--conf", "0.5")
    assert (other.returncode, other.stdout) == (65, "")
    assert "conf: has 0.05, asked for 0.5" in other.stderr
    (pictures / "new.jpg").write_bytes(next(pictures.rglob("*.jpg")).read_bytes())
    more = job(*command, "--conf", "0.05")
    assert more.returncode == 65
    assert "num_pictures: has 5, asked for 6" in more.stderr
    assert results_of(out) == before
    assert sorted(path.name for path in pictures.iterdir()) == ["new.jpg", "north", "south"]


def test_the_results_are_in_the_files_that_are_promised(undisturbed):
    """The place has the request, the shards, the tables, the page and the end, and nothing else."""
    keys = {key for key in undisturbed if not key.startswith("drawn/")}
    assert keys == {*RESULTS, *(f"shards/{number:05d}.json" for number in range(1, NUM_SHARDS + 1))}
