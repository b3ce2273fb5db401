"""Sources of pictures: folders, files, prefixes."""

import os
from pathlib import Path

import pytest

from job.errors import DataError, UsageError
from job.prediction.source import SourceChangedError, open_source
from tests.support.predicting import copy_folder


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures, by their names."""
    for name in ("b.jpg", "a/z.PNG", "a/b.jpeg", "film.mp4", ".hidden.jpg", "a.b/c.tif"):
        path = tmp_path / "flight" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "flight"


def names_of(source):
    """Return the names of the pictures."""
    return [picture.name for picture in source.pictures]


def test_a_folder_is_listed_with_its_folders_and_only_read(folder):
    """Names are relative and sorted, other files are counted, and nothing is written."""
    before = sorted(path for path in folder.rglob("*"))
    source = open_source([str(folder)])
    assert names_of(source) == ["a.b/c.tif", "a/b.jpeg", "a/z.PNG", "b.jpg"]
    assert source.num_others == 1
    assert source.read(source.pictures[0]) == b"a.b/c.tif"
    assert sorted(path for path in folder.rglob("*")) == before


def test_the_digest_is_of_names_and_sizes(folder, tmp_path, emulator, monkeypatch):
    """A copy elsewhere has the same digest, in a bucket too; one with another name or size has not."""
    digest = open_source([str(folder)]).digest
    for name, value in emulator.env.items():
        monkeypatch.setenv(name, value)
    place = f"{emulator.make_bucket()}/flight"
    copy_folder(folder, place)
    assert open_source([place]).digest == digest
    assert open_source([f"{place}/a/b.jpeg"]).pictures[0].size_bytes == len("a/b.jpeg")
    (folder / "b.jpg").write_bytes(b"larger than before")
    assert open_source([str(folder)]).digest != digest


def test_files_are_named_from_the_folder_that_they_share(folder):
    """Files of several folders keep what tells them apart; a file that is named twice counts once."""
    words = [str(folder / "b.jpg"), str(folder / "a/b.jpeg"), str(folder / "b.jpg")]
    assert names_of(open_source(words)) == ["a/b.jpeg", "b.jpg"]
    assert names_of(open_source(words[:1])) == ["b.jpg"]


@pytest.mark.parametrize(
    ("words", "error", "part"),
    [
        (["nowhere"], DataError, "1 of 1 names lead to no file or folder"),
        (["n" * 300], DataError, "1 of 1 names lead to no file or folder"),
        (["n" * 300, "flight/b.jpg"], DataError, "1 of 2 names lead to no file or folder"),
        (["flight", "flight/b.jpg"], UsageError, "source flight: stands beside others"),
        (["flight/film.mp4"], DataError, "has no pictures, and 1 other file;"),
        (["empty"], DataError, "has no pictures; name a folder"),
        (["ftp://x/y"], UsageError, "is neither gs://BUCKET nor a folder"),
    ],
)
def test_a_source_that_is_none_is_refused(folder, words, error, part):
    """The message says what was found, and what a source is."""
    Path("empty").mkdir()
    with pytest.raises(error) as raised:
        open_source(words)
    assert part in str(raised.value)


def test_what_cannot_be_read_has_a_reason(folder):
    """A pipe, which would block its reader, and a dangling link are pictures that cannot be read."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("nowhere")
    source = open_source([str(folder)])
    for picture in (picture for picture in source.pictures if picture.name in {"pipe.jpg", "link.jpg"}):
        with pytest.raises(DataError, match="is no file that can be read"):
            source.read(picture)
    assert len(source.pictures) == 6


def test_a_name_that_is_no_text_is_spelt_out(folder):
    """A file whose name has bytes of no encoding is read, and its name can be written into any file."""
    Path(os.fsdecode(bytes(folder) + b"/\xff.jpg")).write_bytes(b"x")
    source = open_source([str(folder)])
    (picture,) = [picture for picture in source.pictures if picture.size_bytes == 1]
    assert (picture.name, source.read(picture)) == ("\\udcff.jpg", b"x")


def test_a_picture_that_vanishes_ends_the_prediction(folder):
    """A picture that was listed and is gone is no broken picture: the result would lack it in silence."""
    source = open_source([str(folder)])
    (folder / "b.jpg").unlink()
    with pytest.raises(SourceChangedError, match=r"the picture b\.jpg is gone since it was listed"):
        source.read(source.pictures[-1])


def test_results_beside_a_source_are_not_in_it(folder):
    """A place whose name begins as that of the source is another one."""
    source = open_source([str(folder)])
    assert source.contains(str(folder))
    assert source.contains(f"{folder}/found")
    assert not source.contains(f"{folder}-found")
