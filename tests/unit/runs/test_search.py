"""The run of a request, and foreign files below ``runs/``."""

import json
import logging
import re
import shlex

import pytest

from job.analysis.summary import finished_runs
from job.cli.app import main
from job.errors import RunConflictError
from job.runs import search as module
from job.runs.request import TrainRequest, command_for
from job.runs.run import Run
from job.runs.search import find_run, survey, warn_of_unfinished
from job.storage.local import FolderStore
from job.text import as_found, fitted
from tests.support.attempt_records import final_content
from tests.support.bucket_records import starting_from
from tests.unit.runs.test_run import record

REQUEST = record("any").request


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


def submit(store, name, request):
    """Record a submission, as far as a run goes by it."""
    store.put(f"runs/{name}/segments/0001.json", json.dumps({"run": name, "request": request}).encode())


@pytest.mark.parametrize("key", ["weights/best.pt", "results.csv", "notes/today.txt", "attempts/0001.json"])
def test_a_folder_of_one_s_own_is_not_taken(store, key):
    """A folder without a run's record keeps its name: a new run takes the next one, and is refused under that name with
    what lies there.
    """
    store.put(f"runs/yolov11_wildlife/{key}", b"mine")
    run, existing = find_run(store, None, REQUEST)
    assert (run.name, existing) == ("yolov11_wildlife2", None)
    with pytest.raises(RunConflictError, match="has files that no run has put there") as caught:
        find_run(store, "yolov11_wildlife", REQUEST)
    assert caught.value.exit_code == 65
    assert caught.value.problems == (key,)


def test_weights_of_a_folder_of_one_s_own_start_a_run_beside_it(store, capsys):
    """A folder of stock Ultralytics that was copied to the bucket serves as start weights, by name or as the default
    name's rival, and the run that starts from it is called otherwise.
    """
    store.put("datasets/wildlife/data.yaml", b"names: [cow, deer]\n")
    store.put("runs/yolov11_wildlife/weights/best.pt", b"weights")
    store.put("runs/yolov11_wildlife/results.csv", b"epoch,time\n")
    words = ["train", "--dry-run", "--weights", "runs/yolov11_wildlife/weights/best.pt", "--bucket", store.uri]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "run: yolov11_wildlife2\n" in said
    assert "found: runs/yolov11_wildlife/weights/best.pt\n" in said
    assert main([*words, "--run", "yolov11_wildlife"]) == 0
    assert "it would not start: run yolov11_wildlife: " in capsys.readouterr().err


def test_a_submission_keeps_its_name(store):
    """A run that was only submitted is the one that its request means, with its name and without."""
    submit(store, "zebra", REQUEST)
    submit(store, "yolov11_wildlife", REQUEST)
    store.put("runs/zebra/segments/0001.job.json", b"{}")
    assert find_run(store, "zebra", REQUEST)[0].name == "zebra"
    assert find_run(store, None, REQUEST)[0].name == "yolov11_wildlife"


def test_the_name_of_another_submission_is_taken(store):
    """The name of a submission of another request is taken, and refused with every difference."""
    submit(store, "yolov11_wildlife", REQUEST | {"recipe": "B"})
    assert find_run(store, None, REQUEST)[0].name == "yolov11_wildlife2"
    with pytest.raises(RunConflictError, match="was submitted with other values") as caught:
        find_run(store, "yolov11_wildlife", REQUEST)
    assert caught.value.problems == ("recipe: the run has 'B', asked for 'A'",)


def test_a_submission_that_cannot_be_read_stops_nothing(store):
    """A foreign file among submissions takes the name, and ends no search."""
    store.put("runs/yolov11_wildlife/segments/0001.json", b"mine")
    assert find_run(store, None, REQUEST)[0].name == "yolov11_wildlife2"
    with pytest.raises(RunConflictError, match="was submitted with other values"):
        find_run(store, "yolov11_wildlife", REQUEST)


def test_a_submission_with_other_files_is_taken(store):
    """A folder with a submission of the same request and other files is not taken."""
    submit(store, "zebra", REQUEST)
    store.put("runs/zebra/weights/best.pt", b"mine")
    with pytest.raises(RunConflictError, match="has files that no run has put there"):
        find_run(store, "zebra", REQUEST)
    submit(store, "yolov11_wildlife", REQUEST)
    store.put("runs/yolov11_wildlife/weights/best.pt", b"mine")
    assert find_run(store, None, REQUEST)[0].name == "yolov11_wildlife2"


def test_an_incomplete_submission_is_taken(store):
    """A submission without a first record, or with that of another run, matches no request."""
    store.put("runs/zebra/segments/0001.job.json", b"{}")
    with pytest.raises(RunConflictError, match="was submitted with other values"):
        find_run(store, "zebra", REQUEST)


def test_a_run_that_another_machine_has_just_begun_is_no_stray_folder(store, monkeypatch):
    """A record that appears between two listings makes the folder a run, and not foreign files."""
    looks = []

    class Late(Run):
        def record(self):
            looks.append(self.name)
            if len(looks) == 1:
                super().create(record(self.name))
                return None
            return super().record()

    monkeypatch.setattr(module, "Run", Late)
    assert find_run(store, "zebra", REQUEST)[1] == record("zebra")


def strays(store):
    """Put foreign files among the runs, and return the one run."""
    Run(store, "yolov11_wildlife").create(record("yolov11_wildlife", **asked("--dataset", "tiny")[0]))
    sound = store.read("runs/yolov11_wildlife/run.json")
    store.put("runs/my copy/run.json", sound)
    store.put("runs/yolov11_wildlife9/run.json", sound)
    store.put("runs/yolov11_wildlife10/run.json", b'{"mine": true}')
    store.put("runs/yolov11_wildlife11/run.json", b"mine")
    store.put("runs/other/weights/best.pt", b"mine")
    store.put("runs/readme.txt", b"mine")
    submit(store, "submitted", REQUEST)
    return "yolov11_wildlife"


def test_strays_stop_nothing(store, caplog):
    """A copied folder, a name or a record that is none, and foreign files end no search, and are reported."""
    name = strays(store)
    assert [found.run.name for found in survey(store).runs] == [name]
    assert [run.name for run in survey(store).submitted] == ["submitted"]
    with caplog.at_level(logging.INFO):
        run, existing = find_run(store, None, asked("--dataset", "tiny")[0])
    assert (run.name, existing is not None) == (name, True)
    assert "runs/yolov11_wildlife9: is not a run, but a copy of another one; passed over" in caplog.text
    assert find_run(store, None, REQUEST)[0].name == "yolov11_wildlife12"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert finished_runs(store) == []
    for stray in ("my copy", "yolov11_wildlife9", "yolov11_wildlife10", "yolov11_wildlife11", "other"):
        assert f"runs/{stray}: is not a run" in caplog.text
    assert "my copy" not in [found.run.name for found in survey(store).runs]


def test_strays_are_listed_as_no_runs(store, capsys):
    """`job runs list` shows the runs, and the other folders apart with what they are."""
    strays(store)
    assert main(["runs", "list", "--bucket", store.uri]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in said[1:4:2]] == ["yolov11_wildlife", "submitted"]
    assert said[2] == f"  {as_found(f'job resume yolov11_wildlife --bucket {store.uri}')}"
    assert sorted(line.partition(":")[0] for line in said[4:]) == [
        "runs/my copy",
        "runs/other",
        *(f"runs/yolov11_wildlife{number}" for number in (10, 11, 9)),
    ]
    assert all(": is not a run" in line for line in said[4:])


def test_an_old_run_under_the_name_of_all_datasets_is_found(store):
    """A run on any dataset that an older version called yolov11_wildlife3 is continued; a new one is named after the
    dataset, whose name may end in digits.
    """
    old, new = asked("--dataset", "coco128", "--recipe", "A")[0], asked("--dataset", "coco128", "--recipe", "B")[0]
    Run(store, "yolov11_wildlife3").create(record("yolov11_wildlife3", **old))
    assert find_run(store, None, old)[0].name == "yolov11_wildlife3"
    for name in ("yolov11_coco128_1", "yolov11_coco128_2"):
        assert find_run(store, None, new)[0].name == name
        Run(store, name).create(record(name, **new | {"quarantine": True}))
    Run(store, "yolov11_coco128_3").create(record("yolov11_coco128_3", **new))
    assert find_run(store, None, new)[1].run == "yolov11_coco128_3"


def test_the_newest_of_equal_runs_is_meant(store):
    """Of several runs that were asked for in the same way, the one with the highest number is continued."""
    for name in ("yolov11_wildlife", "yolov11_wildlife2", "yolov11_wildlife10"):
        Run(store, name).create(record(name))
    assert find_run(store, None, REQUEST)[0].name == "yolov11_wildlife10"


def asked(*words):
    """Return what words of a command line ask for, and the run that they name."""
    flags = dict.fromkeys(TrainRequest.flags())
    arguments, left = {}, list(words)
    while left:
        name = left.pop(0).removeprefix("--").replace("-", "_")
        value = left.pop(0) if left and not left[0].startswith("--") else "true"
        (flags if name in flags else arguments)[name] = value
    request = TrainRequest.parse({name: text for name, text in flags.items() if text} | {"arguments": arguments})
    return request.identity(flags["dataset"]), flags["run"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--recipe", "A", "--epochs", "3", "--plots", "false", "--hsv-s", "0.25"],
        ["--model", "yolo11n.yaml", "--new-classes", "--quarantine"],
        ["--recipe", "continue", "--weights", "runs/zebra/weights/best.pt"],
        ["--weights", "zebra", "--model", "yolo11n.yaml"],
        ["--recipe", "B", "--profile", "demo", "--patience", "7"],
    ],
    ids=" ".join,
)
def test_the_command_for_a_run_asks_for_the_run(words):
    """The command that is printed for a run asks, word by word, for what the run was asked for."""
    request, _ = asked("--dataset", "tiny", *words)
    command = shlex.split(command_for("train", request, "zebra9", "gs://b/my pictures"))
    assert command[0].rpartition("/")[2] == "job"
    assert command[1] == "train"
    assert command[-2:] == ["--bucket", "gs://b/my pictures"]
    assert asked(*command[2:-2]) == (request, "zebra9")


def test_a_second_run_is_not_begun_in_silence(store, caplog):
    """A changed argument that begins another run beside an unfinished one names it, each difference, and both
    commands; the nearest of several is named.
    """
    base, _ = asked("--dataset", "wildlife", "--epochs", "3")
    other, _ = asked("--dataset", "wildlife", "--recipe", "B")
    for name, request in (("yolov11_wildlife", base), ("yolov11_wildlife2", other)):
        Run(store, name).create(record(name, **request))
    asked_for, _ = asked("--dataset", "wildlife", "--epochs", "5")
    run, existing = find_run(store, None, asked_for)
    assert existing is None
    with caplog.at_level(logging.INFO):
        warn_of_unfinished(store, run, asked_for, "train")
    assert "run yolov11_wildlife3: is new, named after dataset wildlife; --run gives another name" in caplog.text
    assert "run yolov11_wildlife: is not finished" in caplog.text
    assert "run yolov11_wildlife3 begins beside it" in caplog.text
    assert "train.epochs: the run has 3, asked for 5" in caplog.text
    narrow = [part for line in caplog.records[-1].getMessage().split("\n") for part in fitted(line, 50)]
    commands = [shlex.split(line) for line in "\n".join(narrow).replace("\\\n", " ").split("\n") if "job train" in line]
    assert [command[1:] for command in commands] == [
        [*f"train --recipe base --dataset wildlife --epochs {epochs} --run {name} --bucket".split(), store.uri]
        for epochs, name in (("3", "yolov11_wildlife"), ("5", "yolov11_wildlife3"))
    ]  # on a narrow terminal they can be copied too


def test_an_unfinished_run_on_another_dataset_is_no_warning(store, caplog):
    """A run on other pictures repeats none that is not finished; one on another version of them may."""
    Run(store, "yolov11_wildlife").create(record("yolov11_wildlife", **asked("--dataset", "wildlife")[0]))
    for dataset, warned in (("photos", False), ("wildlife@1", True)):
        caplog.clear()
        warn_of_unfinished(store, Run(store, "zebra"), asked("--dataset", dataset)[0], "train")
        assert ("run yolov11_wildlife: is not finished" in caplog.text) == warned


def test_a_second_run_beside_finished_ones_is_no_warning(store, caplog):
    """Where all runs are finished, or there is none, another one is simply begun."""
    warn_of_unfinished(store, Run(store, "zebra"), REQUEST, "train")
    run = Run(store, "yolov11_wildlife")
    run.create(record("yolov11_wildlife"))
    run.finish(final_content())
    warn_of_unfinished(store, Run(store, "zebra"), REQUEST, "train")
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


def test_more_epochs_of_a_finished_run_are_an_extension(store, caplog):
    """Where a request differs from a finished run by more epochs alone, the command that extends it is offered, whether
    the run was named or not; of an unfinished run, of fewer epochs or of another value it is not.
    """
    base, _ = asked("--dataset", "wildlife", "--epochs", "3")
    more, _ = asked("--dataset", "wildlife", "--epochs", "5")
    run = Run(store, "yolov11_wildlife")
    run.create(record(run.name, **base))
    with pytest.raises(RunConflictError, match="repeat those to continue it"):
        find_run(store, run.name, more)
    run.finish(final_content())
    extend = f"job extend yolov11_wildlife --epochs 5 --bucket {store.uri}"
    with pytest.raises(RunConflictError, match=re.escape(f"it is finished; `{extend}` trains it for longer")):
        find_run(store, run.name, more)
    for words, offered in (
        (["--epochs", "5"], True),
        (["--epochs", "2"], False),
        (["--epochs", "5", "--lr0", "0.1"], False),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            warn_of_unfinished(store, Run(store, "zebra"), asked("--dataset", "wildlife", *words)[0], "train")
        assert ("job extend" in caplog.text) == offered
        assert (f"to train it for longer instead:\n  {as_found(extend)}" in caplog.text) == offered


def test_a_dry_run_warns_of_similar_runs(store, capsys):
    """`job train --dry-run` warns as the start would, and does not for the run itself."""
    store.put("datasets/wildlife/data.yaml", b"names: [animal]\n")
    request, _ = asked("--dataset", "wildlife", "--model", "yolo11n.yaml", "--epochs", "3")
    point = {"kind": "scratch", "source": None, "architecture": "yolo11n.yaml"}
    Run(store, "yolov11_wildlife").create(starting_from(record("yolov11_wildlife", **request), point))
    for epochs, run, beside in (("5", "yolov11_wildlife2", True), ("3", "yolov11_wildlife", False)):
        words = ["train", "--dry-run", "--model", "yolo11n.yaml", "--epochs", epochs, "--bucket", store.uri]
        assert main(words) == 0
        said = capsys.readouterr()
        assert f"run: {run}\n" in said.out
        assert ("is not finished" in said.err) == beside


@pytest.mark.parametrize("change", [{"new_classes": True}, {"quarantine": True}])
def test_a_permission_is_part_of_a_run(change):
    """A run that may take other classes, or set broken files aside, is another one than a run that may not."""
    assert TrainRequest.parse({"recipe": "A"}).identity("wild") != TrainRequest.parse(
        {"recipe": "A", **change}
    ).identity("wild")
