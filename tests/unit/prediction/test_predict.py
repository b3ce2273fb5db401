"""The protocol of a prediction, with a detector that needs no model."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from job.errors import PreemptionError, RunConflictError, UnreadableRecordError
from job.prediction import predict as prediction_module
from job.prediction.predict import NO_PICTURE, Prediction, predict
from job.prediction.records import ShardRecord, shard_key
from job.prediction.source import open_source
from job.session.watchdog import NO_BYTE, Watchdog
from job.storage.local import FolderStore
from job.training.evaluation_record import Detection
from tests.support.prediction_request import prediction_request


class Mean:
    """Finds one box in each picture, of the picture's brightness; a batch of another size has other bits."""

    names = ("dark", "light")
    num_channels = 3

    def __init__(self):
        self.batches, self.on_batch = [], lambda _number: None

    def detect(self, pictures):
        self.batches.append(len(pictures))
        self.on_batch(len(self.batches))
        return [
            [(int(picture.mean() > 127), picture.mean() / 256 + len(pictures) / 1000, 1.0, 2.0, 3.0, 4.004)]
            for picture in pictures
        ]


@pytest.fixture
def detector(monkeypatch):
    """A detector in the place of a model."""
    found = Mean()
    monkeypatch.setattr(prediction_module._Work, "_load", lambda _work: found)
    return found


@pytest.fixture
def asked(tmp_path):
    """A function that returns a prediction of eleven pictures, one of them broken, into a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(10):
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.full((20, 30, 3), 20 * number, np.uint8))
    (folder / "04b.png").write_text("broken")

    def ask(name="out", **changes):
        source = open_source([str(folder)])
        request = prediction_request(
            run="zebra", source=source.digest, num_pictures=len(source.pictures), batch=2, shard=4
        )
        return Prediction(
            request=request.model_copy(update=changes),
            run=None,
            source=source,
            out=FolderStore.create(str(tmp_path / name)),
            device="cpu",
            workdir=tmp_path / "work",
        )

    return ask


def content_of(store):
    """Return all objects of a store."""
    return {stored.key: store.read(stored.key) for stored in store.list()}


def test_a_finished_prediction_is_not_done_again(asked, detector):
    """The second call finds the end, and the detector has nothing to do."""
    final, already = predict(asked())
    assert (final.num_pictures, final.num_unreadable, already) == (11, 1, False)
    assert final.totals == {"dark": 7, "light": 3}
    detector.batches.clear()
    assert predict(asked()) == (final, True)
    assert detector.batches == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGTERM, "preempted"), (signal.SIGHUP, "interrupted"), (signal.SIGINT, "interrupted")],
)
def test_each_notice_of_a_training_is_one_here(asked, detector, number, reason):
    """SIGTERM, a closed terminal and Ctrl-C stop it after the batch at hand, with the exit code of a training."""
    detector.on_batch = lambda _batch: os.kill(os.getpid(), number)
    with pytest.raises(PreemptionError) as raised:
        predict(asked())
    assert (raised.value.reason, raised.value.exit_code, len(detector.batches)) == (reason, 75, 1)


def test_a_notice_while_the_files_are_written_ends_it_at_once(asked, detector, monkeypatch):
    """The final files take a while; the same command writes them again, to the same bytes."""
    predict(asked("undisturbed"))
    with monkeypatch.context() as patched:
        patched.setattr(prediction_module, "render", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(PreemptionError):
            predict(asked())
    assert "report.html" not in content_of(asked().out)
    predict(asked())
    assert content_of(asked().out) == content_of(asked("undisturbed").out)


def test_pictures_are_progress_to_the_watchdog(asked, detector, monkeypatch):
    """While pictures are searched each batch is a beat, and only that; before and after, each byte is."""
    watched = []

    class Watched(Watchdog):
        def beat(self):
            watched.append(self._watched)
            super().beat()

    monkeypatch.setattr(prediction_module, "Watchdog", Watched)
    predict(asked())
    beats = [NO_PICTURE] * (len(detector.batches) + 1)  # one for the beginning
    assert watched == [NO_BYTE, *beats, NO_BYTE, ""]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_batches_do_not_depend_on_where_it_stopped(asked, detector, number):
    """A notice at any batch stops it there; the same command ends with the bytes of an undisturbed prediction."""
    predict(asked("undisturbed", draw=True))

    detector.batches.clear()
    detector.on_batch = lambda batch: os.kill(os.getpid(), signal.SIGTERM) if batch == number else None
    with pytest.raises(PreemptionError):
        predict(asked(draw=True))
    assert len(detector.batches) == number
    detector.on_batch = lambda _number: None
    predict(asked(draw=True))
    assert content_of(asked().out) == content_of(asked("undisturbed").out)


def test_the_first_result_of_a_shard_stands(asked, detector):
    """A shard that another machine commits meanwhile, with other last bits, is what the files are written from."""
    out, taken = asked().out, []

    def commit_first(_batch):
        if not taken:
            for number in (1, 2, 3):
                record = ShardRecord.read("", (content_of(other.out))[shard_key(number)])
                boxes = (Detection(0, 0.25, 1.0, 2.0, 3.0, 4.0),)
                pictures = [replace_boxes(result, boxes) for result in record.pictures]
                out.put(shard_key(number), ShardRecord(shard=number, pictures=pictures).to_json())
            taken.append(True)

    def replace_boxes(result, boxes):
        return result if result.failure else result.model_copy(update={"detections": boxes})

    other = asked("other")
    predict(other)
    detector.on_batch = commit_first
    final, _ = predict(asked())
    assert final.totals == {"dark": 10, "light": 0}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"conf": 0.4}, "conf: has 0.3, asked for 0.4"),
        ({"weights": "b" * 64}, "the run's weights, SHA-256: has"),
        ({"tiles": 512, "overlap": 0.2}, "tiles: has nothing, asked for 512"),
        ({"source": "c" * 64}, "names and sizes of the pictures, SHA-256: has"),
    ],
)
def test_another_prediction_is_refused_with_each_difference(asked, detector, changes, difference):
    """What decides a result cannot change within one place."""
    predict(asked())
    before = content_of(asked().out)
    with pytest.raises(RunConflictError) as raised:
        predict(asked(**changes))
    assert difference in str(raised.value)
    assert "choose another --out" in str(raised.value)
    assert content_of(asked().out) == before


@pytest.mark.parametrize("key", ["counts.csv", "drawn/00.png.jpg", "report.html"])
def test_files_of_others_are_not_overwritten(asked, detector, key):
    """A place that has a file of one of the names and no prediction is refused before anything is done."""
    asked().out.put(key, b"my own")
    with pytest.raises(RunConflictError, match=f"has {re.escape(key)} already, of no prediction"):
        predict(asked())
    assert content_of(asked().out) == {key: b"my own"}
    assert detector.batches == []


def test_a_name_that_no_folder_holds_is_not_drawn(asked, detector, tmp_path, caplog):
    """A picture whose name leaves no room for an ending is counted like any other."""
    name = "x" * 248 + ".png"
    (tmp_path / "pictures/00.png").rename(tmp_path / "pictures" / name)
    final, _ = predict(asked(draw=True))
    assert final.num_pictures == 11
    assert "it is not drawn" in caplog.text
    assert len([key for key in content_of(asked().out) if key.startswith("drawn/")]) == 9


def test_a_file_that_was_put_in_between_is_not_overwritten(asked, detector):
    """A final file that somebody else wrote meanwhile stays, and the message names it."""
    detector.on_batch = lambda number: asked().out.put("counts.csv", b"mine") if number == 6 else None
    with pytest.raises(RunConflictError, match=r"counts\.csv: is not what the shards come to"):
        predict(asked())
    assert asked().out.read("counts.csv") == b"mine"
    asked().out.delete("counts.csv")
    assert predict(asked())[1] is False


def test_a_shard_of_other_pictures_is_refused(asked, detector):
    """A shard that was changed by hand is named, and no file is written from it."""
    predict(asked("other"))
    record = json.loads(asked("other").out.read(shard_key(2)))
    detector.batches.clear()
    detector.on_batch = lambda number: (
        asked().out.put(shard_key(1), json.dumps(record | {"shard": 1}).encode()) if number == 1 else None
    )
    with pytest.raises(UnreadableRecordError, match=r"shards/00001\.json: has other pictures than its shard"):
        predict(asked())
    assert "counts.csv" not in content_of(asked().out)


def test_nothing_stays_in_the_working_folder(asked, detector, tmp_path):
    """The folder of the attempt is removed."""
    predict(replace(asked(), workdir=Path(tmp_path / "w")))
    assert list((tmp_path / "w/runs").iterdir()) == []
