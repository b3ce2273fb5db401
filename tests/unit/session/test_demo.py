"""The demo: the baseline that it trains first, and the accounting of its seconds."""

from types import SimpleNamespace

from job.cli.app import main
from job.runs.request import TrainRequest
from job.session import demo
from job.storage.local import FolderStore
from tests.support.bucket_records import put_recorded, recorded
from tests.support.cli_process import ROOT

DEMO = {"profile": "demo", "device": "cpu", "workers": "0", "checkpoint_every": "0"}


def test_the_demo_keeps_to_its_own_pictures(tmp_path):
    """Beside other datasets the demo is of the synthetic one, unless another is named; other trainings ask for one."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    full, small = (TrainRequest.parse({"recipe": "base", "profile": profile}) for profile in ("full", "demo"))
    store.put("datasets/photos/data.yaml", b"x")
    assert demo.default_dataset(store, small) is None
    store.put(f"datasets/{demo.DATASET}/data.yaml", b"x")
    assert demo.default_dataset(store, small) == demo.DATASET
    assert demo.default_dataset(store, full) is None
    assert demo.default_dataset(store, small.model_copy(update={"dataset": "photos"})) == "photos"


def test_a_plan_of_the_demo_is_of_its_own_pictures(tmp_path, capsys):
    """`job train --dry-run` of the demo names the dataset that the start would take."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    for name in ("photos", demo.DATASET):
        store.put(f"datasets/{name}/data.yaml", b"names: [animal]\n")
    assert main(["train", "--recipe", "base", "--profile", "demo", "--dry-run", "--bucket", store.uri]) == 0
    assert f"dataset: {demo.DATASET}\n" in capsys.readouterr().out


def test_a_bucket_whose_data_were_deleted_is_an_empty_one(tmp_path, monkeypatch, caplog):
    """Marks of a deletion are no data to train on, so that the demo draws its own, and says how long it takes."""
    caplog.set_level("INFO")
    drawn = []
    monkeypatch.setattr(demo, "train", lambda *_, **_more: None)
    monkeypatch.setattr(demo, "draw_demo_dataset", drawn.append)
    monkeypatch.setattr(demo, "plan_push", lambda *_: SimpleNamespace(send=lambda: None))
    store = FolderStore.create(str(tmp_path / "bucket"))
    store.put("datasets/wild/versions/0001.deleted", b"{}\n")
    demo.train_demo(store, TrainRequest.parse({"recipe": "base", "workdir": str(tmp_path / "work"), **DEMO}))
    assert len(drawn) == 1
    assert f"takes {demo.TAKES}" in caplog.messages[0]
    assert f"    {caplog.messages[0]}\n" in (ROOT / "README.md").read_text()


def test_the_seconds_of_an_earlier_run_are_not_those_of_the_next(tmp_path, monkeypatch):
    """Where the demo trains a baseline first, the age of the process belongs to that run, and the next one begins
    at 0; where it need not, the run has it.
    """
    trained = []

    def train(store, order, *, boot_s=None):
        number = len(trained) + 1
        assert order.dataset == demo.DATASET
        trained.append((order.recipe.name, boot_s))
        put_recorded(
            store,
            recorded(order.recipe.name, run=f"yolov11_wildlife{number}", profile="demo", dataset=demo.DATASET),
        )

    def plan_push(store, _folder, name):
        return SimpleNamespace(send=lambda: store.put(f"datasets/{name}/data.yaml", b"x"))

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo, "draw_demo_dataset", lambda _folder: None)
    monkeypatch.setattr(demo, "plan_push", plan_push)
    store = FolderStore.create(str(tmp_path / "bucket"))
    request = TrainRequest.parse({"recipe": "C", "workdir": str(tmp_path / "work"), **DEMO})
    demo.train_demo(store, request)
    assert trained == [("base", None), ("A", 0.0), ("C", 0.0)]
    demo.train_demo(store, request.model_copy(update={"run": "another"}))
    assert trained[3:] == [("C", None)]
