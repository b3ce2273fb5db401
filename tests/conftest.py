"""Every test starts in an empty folder, with an empty home, and with none of the developer's settings."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.emulator import emulator

__all__ = ["emulator"]  # a fixture, one for all tests

FOREIGN = (
    "JOB_",
    "YOLO_",
    "WANDB_",
    "GOOGLE_",
    "GCE_",
    "CLOUDSDK_",
    "STORAGE_EMULATOR_HOST",
    "XDG_",
    "PYTHONUNBUFFERED",
)
"""Prefixes of variables that would lead a test to the developer's bucket, account or settings, or hide a defect."""

LONGEST = ("test_demo", "test_kill_storm", "test_pause_and_extend", "test_tracking", "test_run_survives", "test_drill")
"""Files of minutes, longest first, in the order in which they begin."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the options of the project's own."""
    parser.addoption("--full", action="store_true", help="also run tests marked `full`")
    parser.addoption("--on-cpu", action="store_true", help="rehearse the tests of a GPU on the CPU, at small sizes")
    parser.addoption("--write-golden", action="store_true", help="write golden files anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """Clean the environment before any test module is imported, as Ultralytics reads it on import."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    folder = tempfile.TemporaryDirectory(prefix="job-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ |= {
        "PYTEST_DEBUG_TEMPROOT": os.environ.get("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir()),  # keeps what failed
        "TMPDIR": folder.name,  # processes that are killed leave what they write there
        "HOME": folder.name,
        "YOLO_CONFIG_DIR": folder.name,
        "MPLCONFIGDIR": folder.name,  # one for all tests: its font list takes seconds to make
        "OMP_NUM_THREADS": "1",  # spinning threads of two processes on two cores wait for each other for minutes
        "WANDB_MODE": "disabled",  # the tests of tracking turn it on
        "NO_GCE_CHECK": "true",  # or google.auth waits for a metadata server
    }
    tempfile.tempdir = None  # to be looked up anew
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:  # by nohup or a shell, and what tests start would inherit that
            signal.signal(number, default)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files, or one worker would be busy with them at the end while the others idle.

    Tests marked `full` are skipped without --full.
    """
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))
    for item in items:
        if item.get_closest_marker("full") and not config.getoption("full"):
            # They are whole: one of many alike for other recipes, phases or signals, or minutes long. `make test` would
            # take hours with them. Deselected tests would not be named at the end.
            item.add_marker(pytest.mark.skip("belongs to the full matrices and storms; `make test-all` runs it"))


def pytest_report_header() -> str:
    """Show the versions that a run's bits hang on, without importing them."""
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "ultralytics"))


@pytest.fixture(scope="module", autouse=True)
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run a module's fixtures in a folder of its own: jobs of two modules would share ``work/datasets``."""
    with contextlib.chdir(tmp_path_factory.mktemp("module")):
        yield


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a home of its own, and run it in its `tmp_path`."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def confined() -> None:
    """Isolate Ultralytics in a folder that stays: it asks for one when it is first imported, and never again."""
    from job.training.isolation import isolate_ultralytics  # noqa: PLC0415 -- for those that need it

    before = dict(os.environ)
    isolate_ultralytics(Path(os.environ["YOLO_CONFIG_DIR"]))
    os.environ.clear()  # or what later tests start would depend on which came before
    os.environ.update(before)
