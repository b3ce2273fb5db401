"""The records of a run in a bucket, as a training leaves them, without training."""

import hashlib
import io
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import numpy as np
from PIL import Image

from job.recipes.recipe import load_recipe
from job.runs import checkpoint
from job.runs.listing import BUNDLE
from job.runs.records import METRICS, CheckpointId, RunRecord
from job.runs.run import Claim, Run
from job.storage.local import FolderStore
from tests.support.attempt_records import final_content
from tests.support.bucket_records import FACTS

START = datetime(2026, 11, 23, 8, tzinfo=UTC)

NAMES = ("zebra", "a <b>bold</b> class")
"""The second one is markup, for a page that believes it."""

COLUMNS = ("metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)")


def at(seconds):
    """Return the time so many seconds after the start, as records have it."""
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def metrics(f1):
    """Return columns that come to an F1, with precision above recall."""
    recall = 0.9 * f1
    precision = f1 * recall / (2 * recall - f1)
    return dict(zip(COLUMNS, (precision, recall, f1, f1 / 2), strict=True))


def ours(f1):
    """Return the metrics of a final record that come to an F1."""
    return {"f1": f1, **dict(zip(METRICS[1:], metrics(f1).values(), strict=True))}


def evaluation(f1, num_images=8, pictures=()):
    """Return what a validation saw, with mistakes in every image but the last; `pictures` are its counts by picture."""
    share = np.linspace(0, 1, 101)
    curves = {"confidence": share, "precision": f1 + (1 - f1) * share, "recall": 1 - share, "f1": f1 * (1 - share**2)}
    images = [
        {
            "image": f"images/val/{number:03}.jpg",
            "num_objects": 2,
            "num_missed": num_images - 1 - number,
            "num_false_alarms": 0,
            "objects": [[0.1, 0.1, 0.2, 0.2, 0, 0], [0.6, 0.6, 0.7, 0.7, 1, 1]],
            "predictions": [[0.6, 0.6, 0.7, 0.7, 1, 1, 0.8], [0.3, 0.3, 0.4, 0.4, 0, 0, 0.5]],
        }
        for number in range(num_images)
    ]
    kinds = {
        "num_images": 5,
        "num_objects": 20,
        "num_found": 12,
        "num_false_alarms": 3,
        "map50": f1,
        "map50_95": f1 / 2,
    }
    return {
        "row": metrics(f1),
        "schema": 1,
        "imgsz": 640,
        "iou": 0.5,
        "names": list(NAMES),
        "num_images": num_images,
        "num_objects": 40,
        "operating_point": {"confidence": 0.31, "precision": 0.7, "recall": 0.6, "f1": f1},
        "classes": [
            {"name": name, "precision": 0.7, "recall": 0.6, "f1": f1 - 0.1 * number, **kinds}
            for number, name in enumerate(NAMES)
        ],
        "curves": {name: [round(float(value), 4) for value in values] for name, values in curves.items()},
        "sizes": [
            {"from_px": 0, "to_px": 8, "num_objects": 0, "num_found": 0, "num_false_alarms": 0},
            {"from_px": 8, "to_px": 16, "num_objects": 30, "num_found": 15, "num_false_alarms": 4},
            {"from_px": 16, "to_px": None, "num_objects": 10, "num_found": 9, "num_false_alarms": 2},
        ],
        "images": images,
        "num_images_left_out": 0,
        "pictures": list(pictures),
    }


def results_csv(course):
    """Write a course of F1 as Ultralytics writes its results."""
    rows = []
    for epoch, f1 in enumerate(course, start=1):
        losses = {f"{split}/{name}_loss": 2.0 / epoch for split in ("train", "val") for name in ("box", "cls", "dfl")}
        rows.append({"epoch": epoch, "time": 60.0 * epoch, **losses, **metrics(f1), "lr/pg0": 0.01 / epoch})
    return "\n".join([",".join(rows[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in rows)]) + "\n"


def record_run(
    folder, course, *, before=0.58, finished=True, asked=None, px=64, price=None, name="zebra", pictures=((), ())
):
    """Write the records of a run of recipe A that was cut off once, and return it.

    Args:
        folder: Becomes a bucket.
        course: F1 after each epoch.
        before: F1 of the start weights; None if they were not measured.
        finished: Whether it has ended.
        asked: The epochs that were asked for; as many as there are, if left out.
        px: Width and height of a validation image.
        price: Of each attempt.
        name: What to call it.
        pictures: Counts by picture of the start weights and of the best weights.
    """
    store = FolderStore.create(str(folder))
    run = Run(store, name)
    recipe = load_recipe("A")
    num_epochs = asked or len(course)
    run.create(_record(name, recipe, num_epochs))
    for number in range(8):
        picture = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 255, (px // 8, px // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((px, px)).save(picture, "JPEG")
        store.put(f"datasets/wild/images/val/{number:03}.jpg", picture.getvalue())
    half = math.ceil(len(course) / 2)
    _attempt(run, 1, 0, price=price)
    first = None if before is None else evaluation(before, pictures=pictures[0])
    _commit(folder, run, 1, course[:half], first, {"start-up": 10.0, "useful step": 80.0, "validation": 20.0})
    spent = {"boot": 1.0, "start-up": 9.0, "useful step": 100.0, "validation": 20.0}
    kept = {"checkpoint": f"{half:04d}-000000.a0001", "seconds": spent | {"useful step": 80.0}}
    pulse = {"at": at(130), "position": {"epoch": half, "batch": 2}, "seconds": spent, "kept": kept}
    _put(run, 1, "pulse", pulse)
    receipt = {"checkpoint": f"{half:04d}-000000.a0001", "position": {"epoch": half, "batch": 0}, "steps_lost": 2}
    _attempt(run, 2, 190, receipt=receipt | {"saved": {}, "loaded": {}}, price=price)
    _commit(folder, run, 2, course, first, {"start-up": 10.0, "useful step": 120.0, "validation": 20.0})
    spent = {"boot": 1.0, "start-up": 9.0, "recomputed": 20.0, "useful step": 100.0, "validation": 20.0}
    place = {"epoch": len(course), "batch": 0}
    if not finished:
        _put(run, 2, "pulse", {"at": at(340), "position": place, "best_f1": 0.612, "seconds": spent, "kept": None})
        return run
    store.put(run.key("evaluation.json"), json.dumps(evaluation(max(course), pictures=pictures[1])).encode())
    _put(run, 2, "end", {"ended_at": at(350), "reason": "finished", "position": place,
                         "seconds": spent | {"final evaluation": 10.0}})  # fmt: skip
    run.finish(
        final_content(
            attempt=2,
            num_epochs=len(course),
            best_epoch=course.index(max(course)) + 1,
            train_s=60.0 * len(course),
            course=[{"epoch": epoch, **ours(f1)} for epoch, f1 in enumerate(course, start=1)],
            comparison={
                "before": None if before is None else ours(before),
                "after": ours(max(course)),
                "expected": {"f1": [0.65, 0.7]},
                "reached": {"f1": True},
            },
        )
    )
    return run


def store_weights(run):
    """Store the final weights of a finished run, and their digests in its final record."""
    final = json.loads(run.store.read(run.key("final.json")))
    for name, digests in final["weights"].items():
        content = f"weights of {name}".encode()
        run.store.put(run.key(f"weights/{name}"), content)
        digests["sha256"] = hashlib.sha256(content).hexdigest()
    run.store.put(run.key("final.json"), json.dumps(final).encode(), overwrite=True)


def _record(name, recipe, num_epochs):
    return RunRecord(
        run=name,
        created_at=at(0),
        request={
            "recipe": "A", "profile": "full", "dataset": "wild", "start": "own best.pt", "model": None,
            "new_classes": False, "quarantine": False, "train": recipe.train | {"epochs": num_epochs},
        },
        recipe_digest=recipe.digest,
        expect={key: [band.low, band.high] for key, band in recipe.expect.items()},
        start={
            "point": {
                "kind": "own", "source": "runs/base/weights/best.pt", "architecture": None, "run": "base",
                "sha256": "a" * 64,
            },
            "transfer": None,
        },
        dataset={"name": "wild", "digest": "b" * 64, "set_aside": []},
        facts=FACTS | {"num_train_images": 40, "num_val_images": 8, "batch": 4},
        environment={"device": "cpu", "versions": {"torch": "2.10.0"}},
        wandb_id="0000",
    )  # fmt: skip


def _attempt(run, number, began, *, receipt=None, price=None):
    about = {
        "attempt": number,
        "claimed_at": at(began + 1),
        "process_age_s": 1.0,
        "host": "here",
        "machine": "a machine",
    }
    run.store.put(run.key(f"attempts/{number:04d}.json"), json.dumps(about | {"price": price}).encode())
    _put(run, number, "start", {"started_at": at(began + 10), "differs": [], "receipt": receipt})


def _put(run, number, kind, content):
    run.store.put(run.key(f"attempts/{number:04d}.{kind}.json"), json.dumps(content).encode())


def _commit(folder, run, attempt, course, first, seconds):
    files = folder.parent / f"{run.name}-{attempt}"
    files.mkdir()
    (files / "results.csv").write_text(results_csv(course))
    if first is not None:
        (files / "evaluation-before.json").write_text(json.dumps(first))
    identity = CheckpointId(len(course), 0, attempt)
    with patch.object(Claim, "require_no_successor"), patch.object(Claim, "require_current"):  # later ones are there
        checkpoint.commit(run, identity, sorted(files.iterdir()), {"seconds": seconds}, None)


def add_attempts(run, num):
    """Add copies of the records of a run's second attempt."""
    for stored in run.store.list(run.key("attempts/0002")):
        text = run.store.read(stored.key).decode()
        for number in range(3, num + 3):
            copy = text.replace('"attempt": 2', f'"attempt": {number}')
            run.store.put(stored.key.replace("0002", f"{number:04d}"), copy.encode())


def copy_run(run, store, num):
    """Copy a run's own records and bundle under as many names as are wanted."""
    records = {name: run.store.read(run.key(name)) for name in ("run.json", "final.json", BUNDLE)}

    def put(number):
        for name, data in records.items():
            store.put(f"runs/{run.name}{number}/{name}", re.sub(rb'(zebra)(\\*")', rb"\g<1>%d\2" % number, data))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(1, num + 1)))
