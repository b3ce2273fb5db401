"""Import of a run of stock Ultralytics: a finished run that lists, comparisons, advice and reports show as imported."""

import json
import shlex
import zipfile

import pytest
import yaml

from job.cli.app import main
from job.datasets.lockfile import read_version
from job.datasets.push import plan_push
from job.errors import TransientStoreError
from job.runs.import_run import import_run, read_ultralytics_run
from job.runs.lineage import find_start
from job.runs.records import PinnedDataset
from job.runs.request import TrainRequest
from job.runs.run import Run
from job.storage.local import FolderStore
from tests.support.faulty_store import FaultyStore
from tests.support.tiny_dataset import make_tiny_dataset

HEAD = (
    *("epoch", "time", "train/box_loss", "train/cls_loss", "train/dfl_loss", "metrics/precision(B)"),
    *("metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)", "val/box_loss", "val/cls_loss", "val/dfl_loss"),
    *("lr/pg0", "lr/pg1", "lr/pg2"),
)
"""Columns of `yolo train`; older versions pad them with spaces."""

F1 = 2 * 0.74 * 0.47 / (0.74 + 0.47)


@pytest.fixture
def folder(tmp_path):
    """A folder of `yolo train` that stopped after three of a hundred epochs; the second one is the best."""
    folder = tmp_path / "runs/detect/yolov11_wildlife"
    (folder / "weights").mkdir(parents=True)
    for name in ("best.pt", "last.pt"):
        with zipfile.ZipFile(folder / "weights" / name, "w") as opened:
            opened.writestr("data.pkl", name)
    lines = [", ".join(f"{name:>20}" for name in HEAD)]
    for epoch, (precision, recall, map50, map50_95) in enumerate(
        [(0.5, 0.3, 0.4, 0.2), (0.74, 0.47, 0.65, 0.4), (0.7, 0.46, 0.6, 0.39)], start=1
    ):
        row = [epoch, 60 * epoch, 2, 1, 1, precision, recall, map50, map50_95, 2, 1, 1, 0.01, 0.01, 0.01]
        lines.append(", ".join(f"{value:>20}" for value in row))
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    args = {"task": "detect", "mode": "train", "model": "yolo11s.pt", "data": "/home/me/wild/data.yaml", "epochs": 100}
    args |= {"batch": 4, "imgsz": 2048, "degrees": 0.0, "patience": 100, "name": "yolov11_wildlife", "tracker": "x"}
    (folder / "args.yaml").write_text(yaml.safe_dump(args))
    return folder


@pytest.fixture
def bucket(tmp_path):
    """A bucket with a dataset."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    plan_push(store, make_tiny_dataset(tmp_path / "wild"), "wildlife").send()
    return str(tmp_path / "bucket")


def test_a_folder_becomes_a_finished_run(folder, bucket, capsys):
    """The run has the folder's name, metrics, arguments and files; the same command again says that it is there."""
    assert main(["import", str(folder), "--bucket", bucket]) == 0
    told = capsys.readouterr()
    assert "run yolov11_wildlife: is imported, 3 epochs, F1 57.5 %" in told.out
    assert "counts as trained on dataset wildlife@1" in told.err
    command = shlex.split(told.out[told.out.index("next ") :].replace("\\\n", " "))
    assert command[2:] == [
        *("train", "--recipe", "A", "--weights", "yolov11_wildlife", "--dataset", "wildlife", "--bucket", bucket)
    ]
    run = Run(FolderStore.open(bucket), "yolov11_wildlife")
    record, final = run.record(), run.final()
    assert (record.imported.folder, record.dataset.name, record.dataset.version) == ("yolov11_wildlife", "wildlife", 1)
    assert (record.train["imgsz"], record.train["epochs"], record.request["start"]) == (2048, 100, "yolo11s.pt")
    assert (final.reason, final.num_epochs, final.best_epoch, final.train_s) == ("stopped early", 3, 2, 180)
    assert (final.comparison.before, final.comparison.after["f1"]) == (None, pytest.approx(F1, abs=1e-4))
    for name in ("weights/best.pt", "weights/last.pt", "results.csv", "args.yaml"):
        assert run.store.read(run.key(name)) == (folder / name).read_bytes()
    assert main(["import", str(folder), "--bucket", bucket]) == 0
    assert "run yolov11_wildlife: was imported before" in capsys.readouterr().out
    assert {stored.key.split("/")[1] for stored in run.store.list("runs/")} == {"yolov11_wildlife"}


def test_values_that_the_job_does_not_train_with_are_no_obstacle(folder, bucket, capsys):
    """A batch size that Ultralytics chose by itself, a cache, and a flag of an older version are warned of, and the
    defaults stand for them in the record; the other values are the folder's.
    """
    args = yaml.safe_load((folder / "args.yaml").read_text())
    args |= {"batch": -1, "cache": "ram", "multi_scale": False, "freeze": None, "lr0": 0.02}
    (folder / "args.yaml").write_text(yaml.safe_dump(args))
    assert main(["import", str(folder), "--bucket", bucket]) == 0
    warned = " ".join(capsys.readouterr().err.split())
    record = Run(FolderStore.open(bucket), "yolov11_wildlife").record()
    assert {name: record.train[name] for name in ("batch", "cache", "multi_scale", "imgsz", "lr0")} == {
        "batch": 16, "cache": False, "multi_scale": 0.0, "imgsz": 2048, "lr0": 0.02,
    }  # fmt: skip
    assert record.facts.batch == 16
    assert "args.yaml: batch: must be a whole number from 1 to 2147483647, got -1; 16 is recorded" in warned
    assert warned.count("is recorded") == 3


def test_records_in_the_folder_are_not_taken_over(folder, bucket):
    """The folder of a run of another bucket is imported as any other: its records, also of evaluations, stay there."""
    for name in ("run.json", "final.json", "evaluation.json", "records.json"):
        (folder / name).write_text("{}")
    (folder / "weights" / "epoch1.pt").write_bytes(b"")
    assert main(["import", str(folder), "--bucket", bucket]) == 0
    run = Run(FolderStore.open(bucket), "yolov11_wildlife")
    assert run.record().imported.folder == "yolov11_wildlife"
    names = {stored.key.removeprefix(run.key("")) for stored in run.store.list(run.key(""))} - {"records.json"}
    assert names == {"run.json", "final.json", "results.csv", "args.yaml", "weights/best.pt", "weights/last.pt"}
    assert run.store.read(run.key("final.json")) != b"{}"


def test_it_is_started_from_and_shown(folder, bucket, capsys):
    """A starts from it; list, show, compare, advise and report tell that it was imported, and none of them fails."""
    assert main(["import", str(folder), "--bucket", bucket]) == 0
    store = FolderStore.open(bucket)
    start = find_start(store, TrainRequest.parse({"recipe": "A", "dataset": "wildlife"}), "yolov11_wildlife2")
    assert (start.run, start.source) == ("yolov11_wildlife", "runs/yolov11_wildlife/weights/best.pt")
    run = ("yolov11_wildlife", "--bucket", bucket)
    assert main(["import", str(folder), "--run", "twin", "--bucket", bucket]) == 0
    for words in (["runs", "list", *run[1:]], ["runs", "show", *run], ["compare", "twin", *run], ["advise", *run]):
        capsys.readouterr()
        assert main(words) == 0, words
        shown = capsys.readouterr().out
        assert "imported" in shown or words[0] == "advise"
    assert main(["runs", "verify", *run]) == 0
    assert "was imported, so that it has no checkpoints" in capsys.readouterr().out
    assert main(["report", *run]) == 0
    page = store.read("runs/yolov11_wildlife/report.html").decode()
    assert "F1 is 57.5 % in epoch 2; the run was trained elsewhere, and imported." in page
    assert main(["extend", *run[:1], "--epochs", "150", *run[1:]]) == 65
    assert "start a new run with --weights yolov11_wildlife" in capsys.readouterr().err


@pytest.mark.parametrize("survives", range(7))
def test_an_import_that_is_cut_off_goes_on(folder, bucket, survives):
    """After a death at any write the run is not finished, and the same call ends it under the same name."""
    store = FolderStore.open(bucket)
    found = read_ultralytics_run(folder)
    dataset = PinnedDataset(name="wildlife", version=1, digest="d" * 64, set_aside=[])
    faulty = FaultyStore(store, survives=survives, error=TransientStoreError("bucket: gone"))
    try:
        import_run(faulty, found, "past", dataset)
    except TransientStoreError:
        assert Run(store, "past").final() is None
    run, _ = import_run(store, found, "past", dataset)
    assert run.final().num_epochs == 3
    assert run.store.read(run.key("weights/best.pt")) == (folder / "weights/best.pt").read_bytes()


def test_an_import_that_was_cut_off_is_not_trained_on(folder, bucket, capsys):
    """Its run has no final record yet, and no command to train makes an attempt at it."""
    store = FolderStore.open(bucket)
    dataset = PinnedDataset(name="wildlife", version=1, digest=read_version(store, "wildlife").digest, set_aside=[])
    faulty = FaultyStore(store, survives=2, error=TransientStoreError("bucket: gone"))
    with pytest.raises(TransientStoreError):
        import_run(faulty, read_ultralytics_run(folder), "past", dataset)
    assert main(["resume", "past", "--bucket", bucket]) == 65
    assert "give `job import` with its folder, yolov11_wildlife, again" in capsys.readouterr().err
    assert Run(store, "past").attempt_numbers() == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "weights/best.pt").unlink(), "weights/best.pt: is not there"),
        (lambda folder: (folder / "results.csv").write_text("epoch\n1\n"), "results.csv: cannot be read"),
        (lambda folder: (folder / "results.csv").write_text(", ".join(HEAD) + "\n"), "has no row"),
        (lambda folder: (folder / "results.csv").write_bytes(b"\xff\xfe"), "results.csv: cannot be read"),
        (lambda folder: (folder / "args.yaml").unlink(), "args.yaml: cannot be read"),
        (lambda folder: (folder / "args.yaml").write_text("!!python/object:os.system x"), "args.yaml: cannot be read"),
        (lambda folder: (folder / "args.yaml").write_text("{task: segment, epochs: 3}"), "of the task 'segment'"),
        (lambda folder: (folder / "args.yaml").write_text("{epochs: many}"), "has values that no training takes"),
    ],
    ids=["weights", "columns", "rows", "bytes", "no arguments", "code", "task", "values"],
)
def test_another_folder_is_refused(folder, bucket, capsys, damage, told):
    """A folder that is none of a training of a detector is refused with what is wrong; nothing is written."""
    damage(folder)
    before = FolderStore.open(bucket).list("runs/")
    assert main(["import", str(folder), "--bucket", bucket]) == 65
    assert told in capsys.readouterr().err
    assert FolderStore.open(bucket).list("runs/") == before


def test_another_run_keeps_its_name(folder, bucket, capsys):
    """An import never writes into a run of that name, nor into a folder of one's own."""
    store = FolderStore.open(bucket)
    store.put("runs/mine/notes.txt", b"mine")
    assert main(["import", str(folder), "--bucket", bucket]) == 0
    with zipfile.ZipFile(folder / "weights/best.pt", "w") as opened:
        opened.writestr("data.pkl", "other")
    for name in ("mine", "yolov11_wildlife"):
        assert main(["import", str(folder), "--run", name, "--bucket", bucket]) == 65
    assert main(["import", str(folder), "--bucket", bucket]) == 0
    assert "run yolov11_wildlife2: is imported" in capsys.readouterr().out
    assert json.loads(store.read("runs/yolov11_wildlife2/run.json"))["imported"]["folder"] == "yolov11_wildlife"


def test_a_file_of_weights_is_pushed(folder, bucket, capsys):
    """A lone file is stored once, never under the name of published weights, nor in place of other ones."""
    best, last = folder / "weights/best.pt", folder / "weights/last.pt"
    push = ("weights", "push", "--bucket", bucket)
    assert main([*push, str(best), "--name", "zebra.pt"]) == 0
    assert "start from it with --weights weights/zebra.pt" in capsys.readouterr().out
    assert FolderStore.open(bucket).read("weights/zebra.pt") == best.read_bytes()
    assert main([*push, str(best), "--name", "zebra.pt"]) == 0
    assert main([*push, str(last), "--name", "zebra.pt"]) == 65
    assert main([*push, str(best), "--name", "yolo11s.pt"]) == 2
    assert main([*push, str(best), "--name", "../x.pt"]) == 2
    assert main([*push, str(folder / "args.yaml")]) == 65
    point = find_start(FolderStore.open(bucket), TrainRequest.parse({"weights": "weights/zebra.pt"}), None)
    assert (point.kind, point.source) == ("own", "weights/zebra.pt")
