"""Warnings of the wrapped libraries: logged once and kept for the record, from every process."""

import logging
import multiprocessing
import warnings

import pytest

from job.runs.records import Exactness
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import job, messages
from tests.support.tiny_dataset import make_tiny_dataset


@pytest.fixture
def collector(confined):
    """A collector, after Ultralytics was confined."""
    from job.training.library_warnings import LibraryWarnings  # noqa: PLC0415 -- reads what the line above has set

    return LibraryWarnings()


@pytest.fixture
def ultralytics_log(collector):
    """The logger of Ultralytics."""
    from ultralytics.utils import LOGGER  # noqa: PLC0415 -- Ultralytics is confined first

    return LOGGER


def test_each_distinct_warning_is_logged_once_and_kept(collector, ultralytics_log, caplog):
    """Of Ultralytics' log and of Python's warnings alike the first of equal ones is passed on, without colours, and
    what is below a warning is not.
    """
    with collector.collected():
        for _ in range(3):
            ultralytics_log.warning("\x1b[34m\x1b[1mtrain: \x1b[0mslow image\n  access")
            warnings.warn("overflow", RuntimeWarning, stacklevel=1)
        ultralytics_log.error("plot failed")
        ultralytics_log.info("a bar")
    assert collector.texts == ["ultralytics: train: slow image access", "python: overflow", "ultralytics: plot failed"]
    assert [record.getMessage() for record in caplog.records] == collector.texts
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.WARNING, logging.ERROR]


def test_what_is_known_and_intended_is_quiet(collector, ultralytics_log, caplog):
    """Warnings of the named list, and those for the developers of a library, are neither logged nor kept."""
    with collector.collected():
        warnings.warn("Detected call of `lr_scheduler.step()` before `optimizer.step()`.", UserWarning, stacklevel=1)
        ultralytics_log.warning("Dataset images contain up to 574 objects (train=574), but max_det=300.")
        warnings.warn("use the other function", DeprecationWarning, stacklevel=1)
    assert (collector.texts, caplog.messages) == ([], [])


def test_a_library_is_named_by_where_its_file_lies(collector):
    """The package of the file that warned stands before the text."""
    with collector.collected():
        warnings.warn_explicit("no kernel", UserWarning, "/env/lib/python3.11/site-packages/torch/nn/f.py", 7)
        warnings.warn_explicit("no codec", UserWarning, "/env/lib/python3.11/site-packages/cv2.py", 7)
    assert collector.texts == ["torch: no kernel", "cv2: no codec"]


def test_a_flood_is_kept_within_bounds(collector, ultralytics_log):
    """A warning whose number changes does not fill the record, and a long one is cut."""
    with collector.collected():
        ultralytics_log.warning("x" * 10_000)
        for number in range(1000):
            ultralytics_log.warning("NaN in step %d", number)
    assert len(collector.texts) == 50
    assert max(map(len, collector.texts)) < 600


def test_a_warning_that_ends_exactness_is_kept_behind_a_flood(collector, ultralytics_log):
    """A kernel that is not deterministic is on record although as many warnings as are kept came before."""
    with collector.collected():
        for number in range(1000):
            ultralytics_log.warning("NaN in step %d", number)
        warnings.warn("f does not have a deterministic implementation", stacklevel=1)
    assert "f does not have a deterministic implementation" in collector.texts[-1]


def test_warnings_of_loader_processes_arrive_once(collector, ultralytics_log, caplog):
    """A warning of several processes, each of them often, is logged once, by their parent."""

    def load():
        for _ in range(5000):
            ultralytics_log.warning("Corrupt image in a worker")

    with collector.collected():
        workers = [multiprocessing.get_context("fork").Process(target=load) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert collector.texts == ["ultralytics: Corrupt image in a worker"]
    assert caplog.messages == collector.texts


def test_nothing_is_collected_outside(collector, ultralytics_log):
    """Warnings before and after are not collected."""
    with collector.collected():
        pass
    ultralytics_log.warning("later")
    with pytest.warns(RuntimeWarning, match="later"):
        warnings.warn("later", RuntimeWarning, stacklevel=1)
    assert collector.texts == []


def test_a_runs_warnings_are_in_its_log_its_record_and_its_report(tmp_path):
    """A size that Ultralytics rounds up, which it says in a warning alone, is printed once, and is in
    the attempt's record and in the report.
    """
    data = make_tiny_dataset(tmp_path / "tiny", num_train=8, num_val=4)
    bucket = make_bucket(data, tmp_path / "bucket")
    done = job(
        *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "70", "--batch", "4"),
        *("--plots", "false", "--workers", "2", "--run", "zebra", "--bucket", bucket),
    )
    assert done.returncode == 0, done.stderr
    rounded = [text for text in messages(done.stderr) if "imgsz" in text]
    assert len(rounded) == 1
    assert rounded[0].startswith("ultralytics: ")
    assert "updating to" in rounded[0]
    run = Run(open_store(bucket), "zebra")
    assert run.attempt(1).end.evidence.warnings == rounded
    assert rounded[0].split("updating to")[1] in run.store.read(run.key("report.html")).decode()
    assert run.final().bits == Exactness(exact=True)
