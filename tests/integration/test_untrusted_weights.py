"""Untrusted weights run no code, take no more memory than they have bytes, and are refused with one message."""

import json
import pickle
import resource
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from job.cli.app import main
from job.errors import CorruptObjectError, WeightsError
from job.runs.checkpoint import committed, read_manifest, set_aside
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.cli_process import ROOT, job, messages, start_job
from tests.support.tiny_dataset import make_tiny_dataset

SMALL = ("--imgsz", "64", "--batch", "8", "--plots", "false", "--workers", "0", "--run", "r")

DIRECTORY_ENTRY = b"PK\x01\x02"
"""Begins an entry of a zip archive's directory."""

pytestmark = pytest.mark.usefixtures("confined")


@pytest.fixture
def bucket(tmp_path):
    """A bucket with a dataset of two classes."""
    (tmp_path / "bucket").mkdir()
    made = make_tiny_dataset(tmp_path / "made", num_train=8, num_val=4)
    (made / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [animal, bird]\n")
    assert main(["data", "push", str(made), "--dataset", "tiny", "--bucket", str(tmp_path / "bucket")]) == 0
    return tmp_path / "bucket"


def words(bucket, *more):
    """Return the words of a small training."""
    return ("train", "--recipe", "base", *more, *SMALL, "--bucket", bucket, "--workdir", bucket.parent / "work")


def load(path):
    """Load weights."""
    from job.training.weights import load_weights  # noqa: PLC0415 -- Ultralytics is confined first

    return load_weights(path)


def make():
    """Return the module that makes checkpoints."""
    from tests.support import checkpoints  # noqa: PLC0415 -- importing torch takes seconds

    return checkpoints


def changed(tmp_path, change):
    """Return a file whose model's description was changed."""
    model = make().detector()
    change(model)
    return make().save(tmp_path / "changed.pt", model)


def test_weights_that_would_run_something_when_their_model_is_built_are_refused(bucket, tmp_path):
    """The activation of a description is code to Ultralytics; no part of the job evaluates it."""
    checkpoints, mark = make(), tmp_path / "mark"
    evil = checkpoints.save(tmp_path / "evil.pt", checkpoints.detector())
    checkpoints.poison(evil, mark)
    refused = job(*words(bucket, "--weights", evil, "--epochs", "1"))
    assert refused.returncode == 65, refused.stderr
    assert "its activation is" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert main(["weights", "digest", str(evil)]) == 0
    assert not mark.exists()
    assert not (bucket / "runs").exists()


def test_a_poisoned_checkpoint_runs_nothing_and_is_carried_nowhere(bucket, tmp_path):
    """A forged checkpoint with a valid manifest runs no code on a machine that resumes from it, nor on one that uses
    its weights; the command that the refusal names sets it aside, and the run resumes from the one before.
    """
    train = words(bucket, "--model", "tiny.yaml", "--epochs", "3")
    run, mark = Run(open_store(str(bucket)), "r"), tmp_path / "mark"
    for _ in range(2):  # each commits one
        start_job(*train, at="manifest:2:kill").communicate()
    before, newest = committed(run)
    poison_checkpoint(bucket, newest, mark, ("last.pt", "best.pt"))
    for _ in range(2):  # it is not set aside upon any number of observations
        refused = job(*train)
        assert refused.returncode == 65, refused.stderr
        (refusal,) = [message for message in messages(refused.stderr) if "its activation is" in message]
        assert refusal.startswith(f"run r: checkpoint {newest} is refused, ")
        assert f"; to resume after {before.position}, set it aside: `" in refusal
    subprocess.run(["sh", "-c", refusal.split("`")[1]], check=True)
    assert set_aside(run) == {newest: ["set aside by hand"]}
    again = job(*train)
    assert again.returncode == 0, again.stderr
    assert run.attempt(5).start.receipt.checkpoint == before
    assert not mark.exists()


def poison_checkpoint(bucket, identity, mark, names):
    """Change weights of a checkpoint in a bucket that is a folder, and seal its manifest anew."""
    store = open_store(str(bucket))
    run = Run(store, "r")
    manifest = read_manifest(run, identity)
    path = bucket / "runs" / "r" / "checkpoints" / str(identity) / "manifest.json"
    content = json.loads(path.read_text())
    content.pop("seal")
    files = [file for file in content["files"] if file["name"] in names]
    for key in {file["key"] for file in files}:  # files with the same bytes are stored once
        make().poison(bucket / key, mark)
    for file in files:
        data = (bucket / file["key"]).read_bytes()
        file |= {"sha256": sha256(data).hexdigest(), "size_bytes": len(data)}
    content["seal"] = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content, indent=1) + "\n")
    assert {file.name for file in manifest.files} >= set(names)
    assert read_manifest(run, identity) != manifest


def test_only_tensors_and_figures_of_a_file_are_passed_on(tmp_path):
    """A best.pt that was restored and is still the best is written anew, without additions."""
    import torch  # noqa: PLC0415 -- importing torch takes seconds

    from job.training.weights import Weights, digest_file  # noqa: PLC0415 -- Ultralytics is confined first

    model = make().detector()
    model.extra = model.model[0].extra = "stranger"
    model.yaml["extra"] = "stranger"
    metrics = {"fitness": 0.5, "stranger": "stranger"}
    path = make().save(
        tmp_path / "best.pt", model, train_metrics=metrics, stranger="stranger", train_args={"a": "stranger"}
    )
    written = tmp_path / "written.pt"
    written.write_bytes(Weights.restored(path, make().detector(), train_args={"epochs": 3}).to_bytes())
    assert b"stranger" in path.read_bytes()
    assert b"stranger" not in written.read_bytes()
    assert digest_file(written) == digest_file(path)
    stock = torch.load(written, weights_only=False)
    assert (stock["epoch"], stock["train_metrics"], stock["train_args"]) == (-1, {"fitness": 0.5}, {"epochs": 3})
    assert stock["model"].names == make().NAMES


def test_weights_of_another_model_are_not_restored(tmp_path):
    """The best weights of a run are of the model that it trains."""
    from job.training.weights import Weights  # noqa: PLC0415 -- Ultralytics is confined first

    path, model = make().save(tmp_path / "best.pt", make().detector()), make().detector()
    model.model[0].extra = model.model[0].conv
    with pytest.raises(WeightsError, match=r"best\.pt: is not of this run's model, its layers have other tensors, 1"):
        Weights.restored(path, model, train_args={})


def test_ultralytics_own_guard_is_up_before_it_is_imported():
    """Should a description get past the table, Ultralytics builds it without eval."""
    code = (
        "from pathlib import Path; from job.training.isolation import isolate_ultralytics; "
        "isolate_ultralytics(Path('confined')); from ultralytics.nn.tasks import _SafeLoad; "
        "raise SystemExit(not _SafeLoad.restricted())"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, check=False).returncode == 0


@pytest.mark.parametrize(
    ("task", "part"),
    [("segment", "segmentation"), ("obb", "rotated boxes"), ("pose", "poses"), ("classify", "classification")],
)
def test_weights_of_another_task_are_refused_by_its_name(tmp_path, task, part):
    """A segmentation model of the same classes has all tensors of a detector, and its head is none."""
    path = make().save(tmp_path / "other.pt", make().detector(task))
    with pytest.raises(WeightsError, match=f"it is made for {part}, and not for detection"):
        load(path)


def test_names_as_a_list_are_as_good_as_numbered_ones(tmp_path):
    """Early weights of Ultralytics have their classes' names in a list."""
    path = changed(tmp_path, lambda model: setattr(model, "names", ["animal", "bird"]))
    assert load(path).names == make().NAMES


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (None, "not numbered from 0"),
        ({1: "animal", 2: "bird"}, "not numbered from 0"),
        ({0: "animal", 1: None}, "not named"),
        ({0: "animal", 1: "b" * 500}, "not named"),
        (["animal"], "its layers have other tensors"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path, names, part):
    """Classes that are not numbered and named, as many as the head has, are refused."""
    with pytest.raises(WeightsError, match=part):
        load(changed(tmp_path, lambda model: setattr(model, "names", names)))


@pytest.mark.parametrize(
    ("entry", "value", "part"),
    [
        ("scales", {"n": [5000, 5000, 1024]}, "scales must be numbers from 0 to 8"),
        ("scales", {"n": [8, 8, 100000]}, "million parameters"),
        ("scales", {"n": [float("inf"), 1, 1]}, "in the place of a number"),
        ("scale", "q", "has no size"),
        ("depth_multiple", 10**9, "in the place of a number"),
        ("backbone", None, "must be lists"),
        ("backbone", [[-1, 1, "Conv", ["__import__('os')", 3]]], "which is not known here"),
        ("backbone", [[-1, 1, "TorchVision", [64]]], "layers that are not known here"),
        ("backbone", [[-1, 10**9, "nn.Identity", []]], "a layer that is none"),
        ("backbone", [[-1, 1, "nn.Upsample", [None, 1000, "nearest"]]] * 11, "numbers of an image"),
        ("backbone", [[-1, 1, "RepNCSPELAN4", [64, 64, 32, 90000]]], "20,000 modules"),
        ("backbone", [[7, 1, "Conv", [64, 3, 2]]], "do not fit each other"),
        ("channels", "3", "in the place of a number"),
    ],
)
def test_a_description_that_asks_for_more_than_there_is_is_refused_before_it_gets_it(tmp_path, entry, value, part):
    """Sizes, repeats and layers of an untrusted description are checked before any of it is built."""
    path = changed(tmp_path, lambda model: model.yaml.update({entry: value}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=part):
        load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


@pytest.mark.parametrize("num_elements", [1 << 30, 1 << 42])
def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path, num_elements):
    """A stride of 0 makes a tensor of 16 TiB out of four bytes, until it is copied."""
    with pytest.raises(WeightsError, match=r"larger than what it holds|without a shape"):
        load(make().hollow(tmp_path / "hollow.pt", num_elements))


def test_a_file_that_unpacks_to_half_a_gigabyte_is_refused(tmp_path):
    """Compression is nothing that torch does: a file that is compressed is not read at all."""
    path = make().compressed(tmp_path / "small.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="it is compressed"):
        load(path)
    from job.training.state import read_state  # noqa: PLC0415 -- Ultralytics is confined first

    with pytest.raises(CorruptObjectError, match="it is compressed"):
        read_state(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250_000  # kilobytes


class Lazy:
    """Pickled, it calls something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


MEMO_OF_GIGABYTES = b"\x80\x02]r\xff\xff\xff\x7f."


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (MEMO_OF_GIGABYTES, "LONG_BINPUT"),
        (pickle.dumps({"model": Lazy(bytearray, 3_000_000_000)}, protocol=2), "bytearray"),
        (pickle.dumps({"model": Lazy(eval, "1")}, protocol=2), "eval"),
        (pickle.dumps({"model": 1}, protocol=4), "as torch writes none"),
        (pickle.dumps({"model": 1}, protocol=2), "holds no model"),
        (pickle.dumps([1], protocol=2), "holds no model"),
        (b"", "damaged"),
        (b"\x80\x02cmodels.yolo\nDetectionModel\n.", "YOLOv5 repository"),
        (b"\x80\x02cultralytics.nn.tasks\nDetectionModel\n}b.", "damaged"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "damaged|no model"),
    ],
)
def test_an_untrusted_pickle_calls_nothing(tmp_path, data, part):
    """A pickle that names other classes or functions is refused with one message."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=part):
        load(make().pickled(tmp_path / "own.pt", data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_an_exported_program_is_refused_as_what_it_is(tmp_path):
    """TorchScript is code; the message does not advise to load it otherwise."""
    with pytest.raises(WeightsError, match="TorchScript program, an export") as refused:
        load(make().torchscript(tmp_path / "exported.pt"))
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize(
    ("offset", "value"), [(8, 0x01), (8, 0x20), (8, 0x40), (6, 99)], ids=["encrypted", "patched", "strong", "version"]
)
def test_an_archive_in_a_form_that_python_does_not_read_is_a_sentence(tmp_path, offset, value):
    """Flags and version of each entry in the archive's directory are those of features that zipfile lacks."""
    path = make().save(tmp_path / "own.pt", make().detector())
    data = bytearray(path.read_bytes())
    entry = data.find(DIRECTORY_ENTRY)
    while entry >= 0:
        data[entry + offset] |= value
        entry = data.find(DIRECTORY_ENTRY, entry + 1)
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"damaged|not a file of torch"):
        load(path)


def test_any_cut_and_any_flipped_byte_is_a_sentence(tmp_path):
    """Damage anywhere in a file ends in `WeightsError` or in a model with other values, never in a traceback."""
    whole = make().save(tmp_path / "whole.pt", make().detector()).read_bytes()
    damaged = tmp_path / "damaged.pt"
    for share in range(1, 20):
        place = len(whole) * share // 20
        damaged.write_bytes(whole[:place])
        with pytest.raises(WeightsError):
            load(damaged)
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(WeightsError):
            load(damaged)


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolov8n.yaml", "yolov5n.yaml", "yolov10n.yaml", "yolov3-tiny.yaml"])
def test_a_model_that_is_built_anew_is_the_one_that_was_saved(tmp_path, name):
    """Weights of 80 classes start a detector of two as stock Ultralytics starts it, and what is saved then, whose head
    is as wide as before, is read back with every tensor.
    """
    import torch  # noqa: PLC0415 -- importing torch takes seconds
    from ultralytics.nn.tasks import DetectionModel  # noqa: PLC0415 -- Ultralytics is confined first

    model = DetectionModel(name, nc=80, verbose=False)
    model.names = {number: f"class {number}" for number in range(80)}
    path = make().save(tmp_path / "weights.pt", model)
    stock = torch.load(path, weights_only=False)["model"].float()
    drawn = torch.get_rng_state()
    sources = load(path), stock
    assert torch.equal(torch.get_rng_state(), drawn)
    started = []
    for source in sources:
        torch.manual_seed(0)
        started.append(DetectionModel(name, nc=2, verbose=False))
        started[-1].load(source, verbose=False)
        started[-1].names = dict(make().NAMES)
    ours, theirs = (model.state_dict() for model in started)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = load(make().save(path, started[0])).state_dict()
    assert all(torch.equal(again[name], ours[name].half().float()) for name in ours if ours[name].is_floating_point())


def test_a_dataset_with_a_pickled_cache_of_labels_does_not_bring_it_along():
    """Ultralytics unpickles `labels/train.cache`; no file of that name is one of a dataset."""
    from job.datasets.lockfile import is_dataset_file  # noqa: PLC0415 -- Ultralytics is confined first

    assert not is_dataset_file("labels/train.cache")
    assert is_dataset_file("labels/train/1.txt")


def test_a_model_file_in_this_folder_is_looked_at_as_well():
    """A model file is untrusted, too: one that asks for too much, or for code, is refused."""
    from job.training.architecture import UnfitArchitectureError, load_architecture, require_size  # noqa: PLC0415 -- Ultralytics is confined first

    head = "head: [[[-1], 1, Detect, [nc]]]\n"
    cases = {
        "activation: print(1)\n": "activation",
        "scales: {n: [1, 1, 1024]}\n": "",
    }
    for number, (text, part) in enumerate(cases.items()):
        name = f"mine{number}.yaml"
        Path(name).write_text(f"nc: 2\n{text}backbone: [[-1, 1, Conv, [64, 3, 2]]]\n{head}")
        if part:
            with pytest.raises(UnfitArchitectureError, match=part):
                require_size(load_architecture(name))
        else:
            require_size(load_architecture(name))
    with pytest.raises(FileNotFoundError):
        load_architecture("http://localhost/yolo11n.yaml")
