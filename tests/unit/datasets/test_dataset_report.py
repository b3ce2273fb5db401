"""The report on a dataset is kept beside it, and read for as long as no file of it changes."""

import os
import shutil

import pytest
import yaml

from job.datasets import dataset_report
from job.datasets.check import check_dataset, write_training_yaml
from job.datasets.dataset_report import REPORT_CACHE, ReportCache
from job.storage.cache_file import CacheFile
from tests.support.tiny_dataset import make_tiny_dataset

IMAGE, LABEL = "images/train/001.jpg", "labels/train/001.txt"

RULES = "False 2048 0"


@pytest.fixture
def data(tmp_path):
    """A sound dataset with all that a report can have but problems: three splits, a list, duplicates, options."""
    folder = make_tiny_dataset(tmp_path / "data")
    for kind in ("images", "labels"):
        shutil.copytree(folder / kind / "val", folder / kind / "test")
    for image in (folder / "images/test").iterdir():
        image.write_bytes(image.read_bytes() + b" ")  # alike, and not the same
    (folder / "labels/train/004.txt").unlink()
    (folder / "val.txt").write_text(
        "".join(f"./images/val/{each.name}\n" for each in (folder / "images/val").iterdir())
    )
    content = yaml.safe_load((folder / "data.yaml").read_text())
    content |= {"test": "images/test", "val": "val.txt", "channels": 3, "kpt_shape": [17, 3]}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_a_report_is_read_as_it_was_written(data, tmp_path):
    """Every part of a report survives, and the data file of a training is the same by either."""
    report = check_dataset(data)
    assert report.near_duplicates
    assert report.test
    assert report.warnings
    ReportCache(data, RULES).write(report)
    found = ReportCache(data, RULES).read()
    assert found == report
    written = []
    for number, each in enumerate((report, found)):
        write_training_yaml(data, each, tmp_path / f"{number}.yaml")
        written.append(yaml.safe_load((tmp_path / f"{number}.yaml").read_text()))
    assert written[0] == written[1]
    assert (written[0]["val"], written[0]["kpt_shape"]) == (["val.txt"], [17, 3])


def test_a_long_report_is_kept_in_parts(data, monkeypatch):
    """A report that is too long for one row is read as it was written, and not at all without one of its parts."""
    monkeypatch.setattr(dataset_report, "ROW_LENGTH", 100)
    (report := check_dataset(data)).hashes.update({f"{number:064}": "a" * 128 for number in range(100)})
    cache = ReportCache(data, RULES)
    cache.write(report)
    assert cache.read() == report
    rows = CacheFile(data / REPORT_CACHE, dataset_report._SCHEMA).read()
    assert len(rows) > 100
    CacheFile(data / REPORT_CACHE, dataset_report._SCHEMA).write({sorted(rows)[50]: None})
    assert cache.read() is None
    cache.write(check_dataset(data))
    assert cache.read() == check_dataset(data)


def test_a_class_name_that_is_no_text_costs_time_only(data):
    """A report whose class has half a character as its name, which no file can have, is not kept."""
    content = yaml.safe_load((data / "data.yaml").read_text())
    names = '["\\ud800a", b]'
    rest = yaml.safe_dump({key: value for key, value in content.items() if key != "names"})
    (data / "data.yaml").write_text(f"{rest}names: {names}\n")
    report = check_dataset(data)
    assert not report.problems
    ReportCache(data, RULES).write(report)
    assert ReportCache(data, RULES).read() is None


def same_size_and_time(data):
    """Edit a label, and set its size and time of change to those of before."""
    status = (data / LABEL).stat()
    (data / LABEL).write_bytes((data / LABEL).read_bytes().replace(b"0", b"1"))
    os.utime(data / LABEL, ns=(status.st_atime_ns, status.st_mtime_ns))


def link_to_another(data):
    """Put a link into the place of an image, which leads to another one of the dataset."""
    (data / IMAGE).unlink()
    (data / IMAGE).symlink_to(data / "images/train/002.jpg")


CHANGES = {
    "a label": same_size_and_time,
    "a file that is new": lambda data: (data / "labels/train/notes.xml").write_text("x"),
    "a file that is gone": lambda data: (data / LABEL).unlink(),
    "a file that was renamed": lambda data: (data / LABEL).rename(data / "labels/train/other.txt"),
    "a folder that is new and empty": lambda data: (data / "images/more").mkdir(),
    "the data file": lambda data: (data / "data.yaml").write_text((data / "data.yaml").read_text() + "\n"),
    "a list": lambda data: (data / "val.txt").write_text((data / "val.txt").read_text() + "\n"),
    "a link in the place of a file": link_to_another,
    "a pipe": lambda data: os.mkfifo(data / "images/train/pipe.jpg"),
    "a link to nowhere": lambda data: (data / "images/train/link.jpg").symlink_to("nowhere"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_report_is_not_read_after_a_change(data, change):
    """A file that is another one by name, inode, size or time makes the report one of the past."""
    (data / "images/train/linked.jpg").symlink_to(data / "images/train/002.jpg")
    ReportCache(data, RULES).write(check_dataset(data))
    assert ReportCache(data, RULES).read()
    change(data)
    assert ReportCache(data, RULES).read() is None


def test_a_folder_that_was_moved_is_checked_again(data):
    """Where a folder lies decides in which folder Ultralytics looks for labels: below another `images`, in none."""
    ReportCache(data, RULES).write(check_dataset(data))
    (data.parent / "images").mkdir()
    moved = data.rename(data.parent / "images" / data.name)
    assert ReportCache(moved, RULES).read() is None


def test_a_change_during_the_check_is_seen(data):
    """A report is that of the files as they were before the check began."""
    cache = ReportCache(data, RULES)
    report = check_dataset(data)
    same_size_and_time(data)
    cache.write(report)
    assert ReportCache(data, RULES).read() is None


def test_other_rules_have_other_reports(data):
    """A report by other rules is not read, and the last one alone is kept."""
    for imgsz in (64, 128):
        assert ReportCache(data, str(imgsz)).read() is None
        ReportCache(data, str(imgsz)).write(check_dataset(data, imgsz=imgsz))
    assert ReportCache(data, "128").read() == check_dataset(data, imgsz=128)
    assert ReportCache(data, "64").read() is None


def test_what_ultralytics_and_the_job_write_is_no_change(data):
    """Caches that are written after a check, among them this one, belong to no dataset."""
    ReportCache(data, RULES).write(report := check_dataset(data))
    (data / "labels/train.cache").write_bytes(b"x")
    (data / ".pulled").write_bytes(b"x")
    assert ReportCache(data, RULES).read() == report


def test_a_report_with_problems_is_not_kept(data):
    """The problems of a dataset are looked for anew each time."""
    (data / LABEL).write_text("0 2 0.5 0.1 0.1\n")
    ReportCache(data, RULES).write(check_dataset(data))
    assert not (data / REPORT_CACHE).exists()


def test_a_name_that_is_no_text_costs_time_only(data):
    """A name in another encoding, which is a problem, has a state as any other."""
    os.rename(os.fsencode(data / LABEL), os.fsencode(data) + b"/labels/train/\xff.txt")  # noqa: PTH104 -- as bytes
    cache = ReportCache(data, RULES)
    cache.write(check_dataset(data))
    assert cache.read() is None


@pytest.mark.parametrize(
    "row",
    ["", "[" * 100_000, "{}", '{"names": [], "splits": {"train": 1}, "problems": [], "warnings": []}'],
    ids=["empty", "deep", "without a field", "of another shape"],
)
def test_a_damaged_report_costs_time_only(data, row):
    """A row that is no report is none."""
    cache = ReportCache(data, RULES)
    CacheFile(data / REPORT_CACHE, dataset_report._SCHEMA).write(
        {cache.state: str(len(row)), f"{cache.state} 00000": row}
    )
    assert cache.read() is None
    cache.write(check_dataset(data))
    assert cache.read() == check_dataset(data)


def test_a_report_of_another_schema_is_not_read(data, monkeypatch):
    """A report whose rules were others, by the schema of report or scan, is none."""
    ReportCache(data, RULES).write(check_dataset(data))
    monkeypatch.setattr(dataset_report, "_SCHEMA", "0")
    assert ReportCache(data, RULES).read() is None
