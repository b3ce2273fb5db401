"""One command from a user's pictures to a trained model."""

import json
import shutil
import zipfile

import pytest

from job.datasets.decoded_images import DecodedImages
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket, run_in
from tests.support.cli_process import TIMEOUT_S, job, start_job
from tests.support.decoding_cli import DECODED
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "1", "--imgsz", "64", "--batch", "4"),
    *("--plots", "false", "--workers", "0"),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A ZIP archive of COCO annotations, as Roboflow exports a dataset without a split."""
    place = tmp_path_factory.mktemp("archive")
    folder = make_tiny_dataset(place / "drawn", num_train=10, num_val=1)
    images, annotations = [], []
    for number in range(10):
        images.append({"id": number, "file_name": f"{number:03}.jpg", "width": 64, "height": 64})
        for line in (folder / f"labels/train/{number:03}.txt").read_text().splitlines():
            kind, x, y, w, h = map(float, line.split())
            box = [(x - w / 2) * 64, (y - h / 2) * 64, w * 64, h * 64]
            annotations.append({"image_id": number, "category_id": int(kind) + 1, "bbox": box})
    names = [{"id": number, "name": name} for number, name in ((1, "zebra"), (2, "ostrich"))]
    content = json.dumps({"images": images, "annotations": annotations, "categories": names})
    with zipfile.ZipFile(place / "kenya.zip", "w") as opened:
        opened.writestr("train/_annotations.coco.json", content)
        for number in range(10):
            opened.write(folder / f"images/train/{number:03}.jpg", f"train/{number:03}.jpg")
    shutil.rmtree(folder)
    return place / "kenya.zip"


@pytest.fixture(scope="module")
def trained(archive, tmp_path_factory):
    """Words of a finished training on the archive, into a bucket that was made; its messages; and bucket and place of
    its archive, which was no folder.
    """
    place = tmp_path_factory.mktemp("trained")
    bucket, kept = place / "bucket", place / "kept"
    kept.touch()
    words = (*TRAIN, "--data", archive, "--bucket", bucket, "--archive", kept, "--workdir", place / "work")
    done = job(*words)
    assert done.returncode == 0, done.stderr
    return words, done.stderr, bucket, kept


def test_pictures_are_trained_on_where_they_lie(trained):
    """A COCO export in a ZIP archive is converted, split, pushed and trained on; again, nothing is left to do but the
    copy for the archive that failed before.
    """
    words, first, bucket, archived = trained
    assert "is finished and not in the archive" in first
    for said in ("has no validation split, so val is the last 2 of 10 pictures", "dataset kenya: version 1, 21 files"):
        assert said in first
    run = run_in(str(bucket), "yolov11_kenya")
    assert (run.record().request["dataset"], run.final().reason) == ("kenya", "complete")
    archived.unlink()
    again = job(*words)
    assert again.returncode == 0
    kept = {path.name for path in (archived / "runs/yolov11_kenya").rglob("*") if path.is_file()}
    assert kept == {"dataset.lock.json", "run.json", "best.pt", "last.pt", "final.json"}
    assert "run yolov11_kenya was finished before" in again.stderr
    assert "0 of them sent now" in again.stderr
    assert len(open_store(str(bucket)).list("datasets/kenya/versions/")) == 1


def test_a_run_of_ultralytics_is_started_from(archive, trained, tmp_path):
    """A folder in the layout of `yolo train` is imported as a finished run, from whose weights A starts."""
    bucket, (_, _, other, _) = tmp_path / "bucket", trained
    bucket.mkdir()
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "kenya")
    assert job("data", "push", tmp_path / "kenya", "--bucket", bucket).returncode == 0
    done = job("import", other / "runs/yolov11_kenya", "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    assert "run yolov11_kenya: is imported, 1 epoch," in done.stdout
    words = ("train", "--recipe", "A", *TRAIN[5:])
    trained = job(*words, "--bucket", bucket)
    assert trained.returncode == 0, trained.stderr
    record = run_in(str(bucket), "yolov11_kenya2").record()
    assert (record.start.point.run, record.start.transfer["left_out"]) == ("yolov11_kenya", [])
    done = job("evaluate", "yolov11_kenya", "--bucket", bucket)
    assert "finds nothing right on the validation split" in done.stderr  # of one epoch; it was looked at


def test_a_second_machine_decodes_no_picture_again(tmp_path):
    """What the first machine has decoded before its training, another one takes from the bucket; no start weights are
    there, so that neither trains.
    """
    bucket = make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=4, num_val=2), tmp_path / "bucket")
    DecodedImages(open_store(bucket), "tiny").forget()  # what the push has recorded
    for machine, num_decoded in (("one", 6), ("two", 0)):
        noted = tmp_path / f"decoded-{machine}"
        noted.touch()
        process = start_job(
            *(*TRAIN, "--weights", "nothing", "--bucket", bucket, "--workdir", tmp_path / machine, "--run", machine),
            program="tests.support.decoding_cli",
            **{DECODED: noted},
        )
        said = process.communicate(timeout=TIMEOUT_S)[1]
        assert (process.returncode, "is neither a file nor a run" in said) == (65, True), said
        assert len(noted.read_text().splitlines()) == num_decoded
