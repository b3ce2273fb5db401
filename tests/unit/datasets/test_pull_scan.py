"""Images and labels that are checked while the files of their dataset arrive."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from job.datasets import image, pull_scan, scan
from job.datasets.check import check_dataset
from job.datasets.decoded_images import DecodedImages
from job.datasets.prepare import prepare_data
from job.datasets.pull_scan import scan_received
from job.datasets.push import plan_push
from job.errors import DataError, StoreError
from job.goodput import PhaseTimer
from job.storage.local import FolderStore
from job.storage.object_store import StoredObject
from tests.support.cli_process import wait_until
from tests.support.tiny_dataset import make_tiny_dataset

NUM_IMAGES = 12
HANG_S = 1200
"""Only what hangs takes that long."""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The file in which the scanning process notes what it does; it starts for the smallest dataset, too."""
    notes = tmp_path / "notes"
    notes.touch()
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.setattr(pull_scan, "MIN_BYTES", 0)
    monkeypatch.setattr(pull_scan, "PROGRAM", ("-m", "tests.support.noted_scan"))
    return notes


def noted(notes, kind):
    """Return what was noted of a kind."""
    lines = notes.read_text().splitlines()
    return sorted(line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} "))


@pytest.fixture
def checked_here(monkeypatch):
    """What this process has decoded and read itself."""
    checked, decode, check_label = [], image.decode, scan.check_label
    monkeypatch.setattr(image, "decode", lambda *given, **options: checked.append("image") or decode(*given, **options))
    monkeypatch.setattr(
        scan, "check_label", lambda *given, **how: checked.append("label") or check_label(*given, **how)
    )
    return checked


@pytest.fixture
def folder(tmp_path):
    """A dataset of 12 images."""
    return make_tiny_dataset(tmp_path / "wild")


def push(folder):
    """Push the dataset into a bucket in which no image is recorded; return that."""
    store = FolderStore.create(str(folder.with_name("bucket")))
    plan_push(store, folder, "wild", force=True).send()
    DecodedImages(store, "wild").forget()
    return store


def prepare(store, folder, *, single_class=False):
    """Prepare the dataset on a machine."""
    with ExitStack() as held:
        return prepare_data(
            *(store, "wild", folder.with_name("work"), folder.with_name("data.yaml"), PhaseTimer()),
            held=held,
            quarantine=False,
            single_class=single_class,
        )


def hold_last_file(store, monkeypatch, is_time, error=None):
    """Let the files come one by one, and the last one, a label, only when it is time, or an error in its place."""
    get_many = store.get_many

    def get_one_by_one(objects, on_done):
        *most, last = objects
        for one in most:
            get_many([one], on_done)
        wait_until(is_time)
        if error:
            raise error
        get_many([last], on_done)

    monkeypatch.setattr(store, "get_many", get_one_by_one)


@pytest.mark.parametrize("num_channels", [3, 1])
def test_images_are_decoded_while_others_arrive(folder, monkeypatch, notes, checked_here, num_channels):
    """All images are decoded before the last file is there, as its data file says, and none is decoded again."""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(data | {"channels": num_channels}))
    store = push(folder)
    checked_here.clear()
    hold_last_file(store, monkeypatch, lambda: len(noted(notes, "image")) == NUM_IMAGES)
    prepare(store, folder)
    assert noted(notes, "image") == [f"{name} {num_channels}" for name in sorted(names_of(folder))]
    assert "image" not in checked_here


@pytest.mark.parametrize("single_class", [False, True])
def test_labels_are_read_while_others_arrive(folder, monkeypatch, notes, checked_here, single_class):
    """All labels but the last are read before that one is there, as the training takes them, and none is read again."""
    store, num_labels = push(folder), len(list(folder.glob("labels/*/*.txt")))
    checked_here.clear()
    hold_last_file(store, monkeypatch, lambda: len(noted(notes, "label")) == num_labels - 1)
    prepare(store, folder, single_class=single_class)
    assert set(noted(notes, "label")) == {str(single_class)}
    assert len(noted(notes, "label")) + checked_here.count("label") == num_labels > 1


def names_of(folder):
    """Return the names of the images."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")]


def test_what_a_cut_pull_has_decoded_is_not_decoded_again(folder, monkeypatch, notes, checked_here):
    """The next start of the machine knows the images that were checked before a pull failed."""
    store = push(folder)
    checked_here.clear()
    with monkeypatch.context() as cut:
        hold_last_file(store, cut, lambda: len(noted(notes, "image")) == NUM_IMAGES, StoreError("bucket: gone"))
        with pytest.raises(StoreError, match="bucket: gone"):
            prepare(store, folder)
    prepare(store, folder)
    assert len(noted(notes, "image")) + checked_here.count("image") == NUM_IMAGES


def test_problems_of_files_that_arrive_are_told_together(folder, notes):
    """The check that follows the pull tells what was found of images and labels, and each problem once."""
    (folder / "images/train/001.jpg").write_bytes(b"text")
    (folder / "labels/train/002.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    store = push(folder)
    with pytest.raises(DataError, match="2 problems found") as caught:
        prepare(store, folder)
    assert caught.value.problems == tuple(map(str, check_dataset(folder).problems))
    assert noted(notes, "process")


@pytest.mark.parametrize("program", [("-c", "import os; os.kill(os.getpid(), 9)"), ("-c", "{")])
def test_without_the_process_the_check_does_its_work(folder, monkeypatch, notes, checked_here, program):
    """A dataset is pulled and checked as well if the process that scans it is killed, or fails."""
    store = push(folder)
    checked_here.clear()
    monkeypatch.setattr(pull_scan, "PROGRAM", program)
    prepare(store, folder)
    assert checked_here.count("image") == NUM_IMAGES


def test_a_process_that_cannot_be_started_is_done_without(folder, monkeypatch, notes, checked_here):
    """A machine on which no more processes can be started pulls and checks a dataset as well."""
    store = push(folder)
    checked_here.clear()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        prepare(store, folder)
    assert checked_here.count("image") == NUM_IMAGES


def test_what_a_killed_process_has_saved_is_not_decoded_again(folder, monkeypatch, notes, checked_here):
    """The check decodes only the image at which the process was killed, and those behind it."""
    store = push(folder)
    checked_here.clear()
    monkeypatch.setenv("DIES_AFTER", "5")
    hold_last_file(store, monkeypatch, lambda: len(noted(notes, "image")) == 5)
    prepare(store, folder)
    assert checked_here.count("image") == NUM_IMAGES - 5


def test_images_that_others_have_decoded_are_not_decoded_while_they_arrive(folder, monkeypatch, notes, checked_here):
    """The process knows the images that the bucket has on record."""
    store = FolderStore.create(str(folder.with_name("bucket")))
    plan_push(store, folder, "wild", force=True).send()
    checked_here.clear()
    hold_last_file(store, monkeypatch, lambda: len(noted(notes, "label")) == NUM_IMAGES - 1)
    prepare(store, folder)
    assert noted(notes, "image") == []
    assert "image" not in checked_here


def test_what_waits_at_the_end_of_a_pull_is_left_to_the_check(folder, monkeypatch):
    """Of files that wait to be scanned when the last name has come, none but the one at hand is scanned."""
    decoded, began, ended, decode = [], threading.Event(), threading.Event(), image.decode

    def slow(*given, **options):
        decoded.append(given)
        began.set()
        assert ended.wait(HANG_S)
        return decode(*given, **options)

    def messages():
        yield json.dumps([str(folder), "data.yaml", False, {}])
        yield from map(json.dumps, names_of(folder))
        assert began.wait(HANG_S)

    @contextmanager
    def pool(num_threads):
        with scan.decoding_pool(num_threads) as threads:
            yield threads
            ended.set()

    monkeypatch.setattr(image, "decode", slow)
    monkeypatch.setattr(pull_scan, "decoding_pool", pool)
    monkeypatch.setattr(pull_scan, "num_cores", lambda: 1)
    scan_received(messages())
    assert len(decoded) == 1


def test_a_process_that_stands_still_holds_up_no_pull(folder, monkeypatch, notes, checked_here):
    """A process that is stopped is killed after a limit, and the check does its work."""
    store = push(folder)
    checked_here.clear()
    monkeypatch.setattr(pull_scan, "END_S", 0.1)
    monkeypatch.setattr(pull_scan, "PROGRAM", ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"))
    prepare(store, folder)
    assert checked_here.count("image") == NUM_IMAGES


def test_an_interrupt_does_not_wait_for_a_process_that_stands_still(folder, monkeypatch, notes):
    """What interrupts the wait for the process kills it, and goes on."""
    store = push(folder)
    monkeypatch.setattr(pull_scan, "PROGRAM", ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"))
    monkeypatch.setattr(pull_scan, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(store, folder)


def interrupted(*_given):
    """Do as a wait during which Ctrl-C is pressed."""
    raise KeyboardInterrupt


def test_an_error_beside_the_process_fails_no_pull(folder, notes):
    """A pull goes on if what its process is to know cannot be had, and leaves the process to end."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")]
    files = {name: StoredObject(name, 1, "") for name in names}
    with pull_scan.scan_arriving(folder, files, lambda: 1 / 0) as arrived:
        for name in names:
            arrived(name)
    assert noted(notes, "process")


def test_the_process_runs_no_code_from_where_the_user_is(folder, monkeypatch, notes, tmp_path):
    """A file of the user's with the name of a module is none of the process."""
    store = push(folder)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "queue.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path / "here")
    prepare(store, folder)
    assert noted(notes, "process")


def test_notices_leave_the_process_alone(folder, notes):
    """A notice to the whole process group does not reach the process: the pull ends it."""
    prepare(push(folder), folder)
    (process,) = noted(notes, "process")
    assert process.endswith(" ignores notices")


def test_the_process_ends_with_a_killed_pull(folder, notes):
    """Once the process that pulls is killed, the one that scans for it ends by itself."""
    code = f"""
import os, signal
from job.datasets import pull_scan
from job.storage.object_store import StoredObject
from tests.unit.datasets.test_pull_scan import noted, wait_until
from pathlib import Path
pull_scan.MIN_BYTES, pull_scan.PROGRAM = 0, ("-m", "tests.support.noted_scan")
folder, notes = Path({str(folder)!r}), Path({str(notes)!r})
names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")]
with pull_scan.scan_arriving(folder, {{name: StoredObject(name, 1, "") for name in names}}, dict) as arrived:
    for name in names:
        arrived(name)
    wait_until(lambda: noted(notes, "image"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=pull_scan.PACKAGE.parent)
    assert killed.returncode == -signal.SIGKILL
    pid = int(noted(notes, "process")[0].split()[0])
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_few_bytes_that_arrive_start_no_process(folder, monkeypatch, notes, checked_here):
    """What is checked in less time than a process takes to start is left to the check, also if it belongs to more."""
    size = sum(path.stat().st_size for path in folder.rglob("*.*"))
    store = push(folder)
    checked_here.clear()
    monkeypatch.setattr(pull_scan, "MIN_BYTES", size + 1)
    prepare(store, folder)
    assert checked_here.count("image") == NUM_IMAGES
    monkeypatch.setattr(pull_scan, "MIN_BYTES", size)
    pulled = folder.with_name("work") / "datasets" / "wild"
    (pulled / names_of(folder)[0]).unlink()
    prepare(store, folder)
    assert noted(notes, "process") == []
    shutil.rmtree(pulled)
    prepare(store, folder)
    assert len(noted(notes, "process")) == 1
