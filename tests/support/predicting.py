"""Predictions: pictures of every kind, a run of records with real weights, and what a prediction wrote."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from job.runs.run import Run
from job.storage.checksums import sha256_of
from job.storage.open_store import open_store
from tests.support.attempt_records import final_content
from tests.support.run_records import evaluation, record_run
from tests.support.tiny_dataset import make_tiny_dataset

RESULTS = ("counts.csv", "detections.csv", "detections.json", "final.json", "predict.json", "report.html")


def make_flight(folder: Path, num_pictures=20) -> Path:
    """Draw pictures of the kind that the tiny weights were trained on, in two folders, and return the folder."""
    data = make_tiny_dataset(folder.parent / f"{folder.name}-drawn", num_train=num_pictures, num_val=1, seed=5)
    for number, path in enumerate(sorted((data / "images/train").iterdir())):
        target = folder / ("north" if number % 2 else "south") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return folder


def add_odd_pictures(folder: Path) -> dict[str, bool]:
    """Add pictures of every kind to a folder; return whether each can be read, by name."""
    drawn = np.asarray(Image.open(next(folder.rglob("*.jpg"))))
    folder = folder / "odd"
    folder.mkdir()
    image = Image.fromarray(drawn)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawn[:40]).save(folder / "rotated.jpg", exif=exif)
    cv2.imwrite(str(folder / "deep.png"), drawn.astype(np.uint16) * 256)
    cv2.imwrite(str(folder / "deep.tif"), drawn.astype(np.uint16) * 256)
    image.convert("L").save(folder / "grey.png")
    image.convert("RGBA").save(folder / "clear.png")
    Image.fromarray(drawn[:3, :5]).save(folder / "narrow.png")
    whole = (folder / "rotated.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(_png_of(200_000, 100_000))
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "notes.txt").write_text("not a picture by its name")
    broken = {"cut.jpg", "text.jpg", "empty.png", "huge.png", "gone.jpg"}
    return {f"odd/{path.name}": path.name not in broken for path in folder.iterdir() if path.suffix != ".txt"}


def _png_of(width: int, height: int) -> bytes:
    """Return a small file that claims to be a very large picture."""
    import io  # noqa: PLC0415 -- for this alone
    import zlib  # noqa: PLC0415 -- for this alone

    written = io.BytesIO()
    Image.new("L", (16, 16)).save(written, "PNG")
    data = bytearray(written.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def make_finished_run(folder: Path, weights: Path, location=None, *, imgsz=64, **changes) -> str:
    """Write the records of a finished run that ended with a file of weights; return its bucket.

    Args:
        folder: Of the bucket.
        weights: Become its best.pt.
        location: Copies everything to this bucket.
        imgsz: At which it was trained.
        changes: Of its evaluation.
    """
    run = record_run(folder, [0.6, 0.7], finished=False)
    record = run.record()
    train = record.request["train"] | {"imgsz": imgsz}
    record = record.model_copy(update={"request": record.request | {"train": train}})
    run.write("run.json", record, overwrite=True)
    run.store.put(run.key("evaluation.json"), json.dumps(evaluation(0.7) | changes).encode())
    run.store.put(run.key("weights/best.pt"), weights)
    digests = {name: {"sha256": sha256_of(weights)} for name in ("best.pt", "last.pt")}
    run.finish(final_content(attempt=2, num_epochs=2, best_epoch=2, weights=digests))
    if location is not None:
        copy_folder(folder, location)
    return location or str(folder)


def copy_folder(folder: Path, location: str) -> None:
    """Copy the objects of a folder into a bucket."""
    store = open_store(location)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("."):
            store.put(name, path)


def results_of(location) -> dict[str, bytes]:
    """Return every object of a prediction, by key."""
    store = open_store(str(location))
    return {stored.key: store.read(stored.key) for stored in store.list()}


def untrained_run(folder: Path) -> Run:
    """Return a run that is not finished."""
    return record_run(folder, [0.6], finished=False)
