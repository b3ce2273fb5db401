"""Prepared pixels: those that were decoded, or none, on a disk that keeps room for the rest."""

import hashlib
import os
import shutil
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from job.errors import BackgroundError
from job.training import prepared_pixels
from job.training.prepared_pixels import PixelFolder, PreparedPixels, make_room, resized
from tests.support.cli_process import start_python, wait_until

NUM_IMAGES = 30

SIZE, IMGSZ, SHAPE = (30, 41), 32, (24, 32, 3)
"""Height and width of an image before resizing, the longer side afterwards, and the shape of its pixels."""

LARGE = 1024

NUM_BYTES = 24 * 32 * 3


def digest_of(name):
    """Return the digest of an image."""
    return hashlib.sha256(name.encode()).hexdigest()


def prepared(folder, images=range(NUM_IMAGES), imgsz=IMGSZ, decoder="decoder 1", size=SIZE):
    """Return the prepared pixels of images by their names, of which those that have room are chosen."""
    labels = [{"im_file": str(name), "shape": size} for name in images]
    digests = {label["im_file"]: digest_of(label["im_file"]) for label in labels}
    found = PreparedPixels(PixelFolder(folder, digests), labels, imgsz=imgsz, num_channels=3, decoder=decoder)
    found.said = found.choose()
    return found


def decoded(number, imgsz=IMGSZ):
    """Return what stands for the decoded pixels of an image."""
    pixels = np.full((*resized(*SIZE, imgsz), 3), number + 1, np.uint8)
    pixels[0, :20, 0] = np.arange(20)
    return pixels


def save(pixels, *numbers, imgsz=IMGSZ):
    """Save the pixels of images, each to its end."""
    for number in numbers:
        pixels.save(number, decoded(number, imgsz), SIZE)
        if pixels._writing is not None:
            pixels._writing.join()


def files_in(folder):
    """Return the files that have their names."""
    return sorted(path for path in folder.rglob("*") if prepared_pixels.NAME.fullmatch(path.name))


@pytest.fixture(autouse=True)
def whole_disk(monkeypatch):
    """Nothing of the disk has to stay free."""
    monkeypatch.setattr(prepared_pixels, "RESERVED_BYTES", 0)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A function that gives the disk of a folder a capacity in images."""

    def limit(num_images):
        def usage(_folder):
            used = sum(path.stat().st_size for path in files_in(tmp_path))
            return SimpleNamespace(free=num_images * NUM_BYTES - used)

        monkeypatch.setattr(shutil, "disk_usage", usage)

    return limit


def test_pixels_are_those_that_were_decoded_and_cannot_be_written_to(tmp_path):
    """Saved pixels are read by any process, to the last bit, and a write into them is an error that leaves them."""
    save(prepared(tmp_path), 0, 1)
    for number in (0, 1):
        pixels = prepared(tmp_path).load(number)
        assert (pixels.shape, pixels.dtype) == (SHAPE, np.uint8)
        assert np.array_equal(pixels, decoded(number))
        with pytest.raises(ValueError, match="read-only"):
            pixels[0, 0, 0] = 7
        with pytest.raises(ValueError, match="WRITEABLE"):
            pixels.flags.writeable = True
    assert prepared(tmp_path).load(2) is None


@pytest.mark.parametrize(
    "change", [{"imgsz": 64}, {"decoder": "decoder 2"}, {"images": ["other"]}, {"size": (41, 30)}, {"size": (30, 40)}]
)
def test_pixels_of_another_content_size_or_decoder_are_not_read(tmp_path, change):
    """Whatever decides the pixels names their file."""
    save(prepared(tmp_path), 0)
    assert prepared(tmp_path, **change).load(0) is None
    assert prepared(tmp_path).load(0) is not None


@pytest.mark.parametrize(
    ("pixels", "size"),
    [
        (decoded(0).astype(np.uint16), SIZE),
        (decoded(0)[:-1], SIZE),
        (decoded(0)[..., :1], SIZE),
        (decoded(0), (41, 30)),
    ],
    ids=["16 bits", "a row less", "grey", "turned"],
)
def test_pixels_that_differ_from_what_the_label_says_are_not_kept(tmp_path, pixels, size):
    """An image that was decoded to another shape than expected is decoded each time."""
    found = prepared(tmp_path)
    found.save(0, pixels, size)
    assert found._writing is None


def test_pixels_in_another_order_of_memory_are_kept_as_they_are(tmp_path):
    """An array that is a view, as of channels in reverse, has its values kept."""
    found = prepared(tmp_path)
    found.save(0, decoded(0)[:, ::-1, ::-1], SIZE)
    found._writing.join()
    assert np.array_equal(found.load(0), decoded(0)[:, ::-1, ::-1])


def truncate(path):
    """Cut a file short."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    os.truncate(path, NUM_BYTES - 1)
    os.utime(path, ns=times)


def lengthen(path):
    """Add a byte to a file."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    os.truncate(path, NUM_BYTES + 1)
    os.utime(path, ns=times)


def edit(path):
    """Change a byte of a file."""
    with path.open("r+b") as opened:
        opened.write(b"\xff")


def replace_by_folder(path):
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncate, lengthen, edit, replace_by_folder])
def test_a_damaged_file_is_not_read(tmp_path, damage):
    """A file that is cut short, too long, or written to since, is none, and is replaced when its image is decoded."""
    save(prepared(tmp_path), 0)
    damage(files_in(tmp_path)[0])
    found = prepared(tmp_path)
    assert found.load(0) is None
    save(found, 0)
    if damage is not replace_by_folder:
        assert np.array_equal(found.load(0), decoded(0))


def test_a_writer_that_is_killed_leaves_no_file_under_its_name(tmp_path):
    """A process that is killed when all bytes of a file are written, but not yet on the disk, leaves a partial file,
    which nothing reads and the next start removes.
    """
    held = tmp_path / "held"
    process = start_python(f"""
import os, pathlib, time
from tests.unit.training import test_prepared_pixels as module
def hold(_descriptor):
    pathlib.Path({str(held)!r}).touch()
    time.sleep(1000)
module.prepared_pixels.RESERVED_BYTES = 0
found = module.prepared(pathlib.Path({str(tmp_path / "pixels")!r}))
os.fsync = hold
print("ready", flush=True)
module.save(found, 0)
""")
    wait_until(held.exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = (tmp_path / "pixels").iterdir()
    assert part.read_bytes() == decoded(0).tobytes()
    found = prepared(tmp_path / "pixels")
    assert found.load(0) is None
    assert not part.exists()
    save(found, 0)
    assert np.array_equal(found.load(0), decoded(0))


def test_a_writer_that_is_killed_at_any_instant_leaves_whole_files(tmp_path):
    """Whatever has its name when a writer of larger files is killed is whole."""
    for num_files in (1, 4, 9):
        folder = tmp_path / str(num_files)
        process = start_python(f"""
import pathlib
from tests.unit.training import test_prepared_pixels as module
module.prepared_pixels.RESERVED_BYTES = 0
found = module.prepared(pathlib.Path({str(folder)!r}), imgsz=module.LARGE)
print("ready", flush=True)
module.save(found, *range(module.NUM_IMAGES), imgsz=module.LARGE)
""")
        wait_until(lambda folder=folder, least=num_files: len(files_in(folder)) >= least, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = prepared(folder, imgsz=LARGE)
        kept = [number for number in range(NUM_IMAGES) if found.load(number) is not None]
        assert len(kept) == len(files_in(folder)) >= num_files
        assert all(np.array_equal(found.load(number), decoded(number, LARGE)) for number in kept)


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path):
    """A process whose writes fail after some bytes, as on a full disk, goes on and leaves no file."""
    process = start_python(f"""
import pathlib, resource
from tests.unit.training import test_prepared_pixels as module
module.prepared_pixels.RESERVED_BYTES = 0
found = module.prepared(pathlib.Path({str(tmp_path / "pixels")!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
print("ready", flush=True)
module.save(found, 0)
found._writing.check()
""")
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert list((tmp_path / "pixels").rglob("*")) == []


def test_a_full_disk_keeps_what_is_reserved(tmp_path, disk, monkeypatch):
    """Images are chosen and kept as long as the reserve stays free, also if the disk fills up afterwards."""
    monkeypatch.setattr(prepared_pixels, "RESERVED_BYTES", 10 * NUM_BYTES)
    disk(14)
    found = prepared(tmp_path)
    assert found.said.startswith(f"prepared pixels: 0 of 30 pictures in {tmp_path}, 4 more (0.0 GB) are kept there")
    assert ", 26 (0.0 GB) are not, which leaves 0 GB of the disk and half of the memory free" in found.said
    disk(12)
    save(found, *range(NUM_IMAGES))
    assert len(files_in(tmp_path)) == 2
    disk(9)
    none = prepared(tmp_path / "other")
    save(none, *range(NUM_IMAGES))
    assert none.said.startswith(f"prepared pixels: 0 of 30 pictures in {tmp_path / 'other'}, 30 (0.0 GB) are not")
    assert files_in(tmp_path / "other") == []


def test_pixels_take_half_of_the_memory_at_most(tmp_path, monkeypatch):
    """Of more images than half of the memory holds, with those that are kept already, the rest is not kept."""
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": NUM_BYTES}.get)
    found = prepared(tmp_path)
    save(found, *range(NUM_IMAGES))
    assert len(files_in(tmp_path)) == 5
    again = prepared(tmp_path)
    save(again, *range(NUM_IMAGES))
    assert again.said.startswith(f"prepared pixels: 5 of 30 pictures in {tmp_path}, 25 (0.0 GB) are not")
    assert len(files_in(tmp_path)) == 5


def test_a_complete_folder_says_so(tmp_path):
    """The line of a start that finds all pixels is short."""
    save(prepared(tmp_path), *range(NUM_IMAGES))
    assert prepared(tmp_path).said == f"prepared pixels: 30 of 30 pictures in {tmp_path}"


def test_pixels_of_others_give_way_if_the_disk_is_short(tmp_path, disk):
    """Pixels that a training does not use are deleted for its own, as many as it needs, and none if there is room."""
    save(prepared(tmp_path, images=range(100, 110)), *range(10))
    disk(20)
    save(prepared(tmp_path, images=range(10)), *range(10))
    assert len(files_in(tmp_path)) == 20
    disk(25)
    used = {digest_of(str(number)) for number in range(13)}
    save(prepared(tmp_path, images=range(13)), *range(13))
    kept = {path.name[:64] for path in files_in(tmp_path)}
    assert used < kept
    assert len(kept) == 23
    disk(20)
    save(prepared(tmp_path, images=range(15)), *range(15))
    kept = {path.name[:64] for path in files_in(tmp_path)}
    assert {digest_of(str(number)) for number in range(15)} < kept
    assert len(kept) == 20
    make_room(tmp_path, 18 * NUM_BYTES)
    assert len(files_in(tmp_path)) == 2


def test_files_that_are_no_pixels_are_never_deleted(tmp_path, disk):
    """A file of the user's in the folder stays, however short the disk is, and a folder that is absent is no error."""
    own = tmp_path / "pixels" / "notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    disk(0)
    make_room(own.parent, NUM_BYTES)
    make_room(tmp_path / "absent", NUM_BYTES)
    assert own.read_text() == "mine"


def test_a_sample_never_waits_for_the_disk(tmp_path, monkeypatch):
    """An image that comes while another is being written is not kept before it is decoded again."""
    go, sync = threading.Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: go.wait(60) and sync(descriptor))
    found = prepared(tmp_path)
    found.save(0, decoded(0), SIZE)
    found.save(1, decoded(1), SIZE)
    go.set()
    found._writing.join()
    assert [found.load(number) is not None for number in (0, 1)] == [True, False]
    save(found, 1)
    assert found.load(1) is not None


def test_a_defect_of_the_writer_is_raised(tmp_path, monkeypatch):
    """An exception that is no error of the disk ends the process that loads."""

    def fail(_folder):
        raise ZeroDivisionError

    found = prepared(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", fail)
    save(found, 0)
    with pytest.raises(BackgroundError, match="prepared pixels: failed, ZeroDivisionError"):
        save(found, 1)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    """A file in the place of the folder means that nothing is kept, and no error."""
    (tmp_path / "pixels").write_text("mine")
    found = prepared(tmp_path / "pixels")
    assert found.said == f"prepared pixels: none are kept, {tmp_path / 'pixels'} cannot be used, File exists"
    save(found, 0)
    assert found.load(0) is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [((3000, 4000), (1536, 2048)), ((4000, 3001), (2048, 1537)), ((10, 4000), (6, 2048)), ((2048, 2048), (2048, 2048))],
)
def test_an_image_is_resized_as_ultralytics_does(size, expected):
    """The longer side is the training's, and the shorter one is rounded up."""
    assert resized(*size, 2048) == expected
