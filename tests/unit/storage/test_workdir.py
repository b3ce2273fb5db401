"""The machine at hand."""

import errno
import os
from types import SimpleNamespace

import pytest

from job.errors import MachineError
from job.session import environment
from job.storage import workdir


def test_data_that_do_not_fit_are_refused_with_both_figures(tmp_path):
    """More bytes than the disk has free are refused before any is fetched."""
    with pytest.raises(MachineError, match=r"1000000\.0 GB are needed and [\d.]+ GB are free") as raised:
        workdir.require_space(tmp_path, 10**15, 0)
    assert raised.value.exit_code == 78


def test_what_is_there_already_needs_no_space(tmp_path, monkeypatch):
    """Files that were fetched before count as fetched."""
    (tmp_path / "there").write_bytes(b"x" * 1000)
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=500))
    workdir.require_space(tmp_path, 1500, 0)
    workdir.require_space(tmp_path, 900, 500)
    for needed, spare in ((1501, 0), (1500, 1), (900, 501)):
        with pytest.raises(MachineError):
            workdir.require_space(tmp_path, needed, spare)


def test_room_is_made_before_data_are_refused(tmp_path, monkeypatch):
    """What may be deleted is deleted before data are refused for lack of space, as much as they need."""
    free = [500]
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=free[0]))
    asked = []

    def make_room(num_bytes):
        asked.append(num_bytes)
        free[0] = num_bytes

    workdir.require_space(tmp_path, 900, 100, make_room)
    assert asked == [1000]


@pytest.mark.parametrize(
    ("number", "part"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EROFS, "Read-only")],
)
def test_an_error_of_the_disk_becomes_advice(tmp_path, number, part):
    """A disk that fills up, or cannot be written, while the job works ends it with exit 78 and what to do."""
    with pytest.raises(MachineError, match=part), workdir.translated_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_versions_name_what_decides_the_bits():
    """An attempt's record says which Python and which libraries it ran on."""
    assert {"python", "torch", "ultralytics", "numpy"} <= set(environment.versions())
