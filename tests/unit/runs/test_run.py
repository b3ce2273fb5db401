"""Names of runs, and claims."""

import pytest

from job.errors import PreconditionError, RunConflictError, SupersededError, UsageError
from job.runs import run as module
from job.runs.records import RunRecord, differences
from job.runs.run import Claim, Run, check_run_name, default_families, family_of, next_free_name
from job.runs.search import find_run, survey
from job.storage.local import FolderStore
from tests.support.attempt_records import final_content
from tests.support.bucket_records import FACTS


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


def record(name, **request):
    """Make a run's record."""
    return RunRecord(
        run=name,
        created_at="2026-11-23T00:00:00+00:00",
        request={
            "recipe": "A",
            "profile": "full",
            "dataset": "wildlife",
            "start": "own best.pt",
            "model": None,
            "new_classes": False,
            "quarantine": False,
            "train": {"epochs": 3},
            **request,
        },
        recipe_digest="0" * 64,
        expect={},
        start={"point": {"kind": "own", "source": "best.pt", "architecture": None}},
        dataset={"name": "wildlife", "digest": "0" * 64, "set_aside": []},
        facts=FACTS,
        environment={},
        wandb_id=f"id-of-{name}",
    )


@pytest.mark.parametrize("name", ["2e967232", "1e5", "yolov11_wildlife", "inf", "0x10", "007"])
def test_what_looks_like_a_number_is_a_name(name):
    """Names that a parser would take for numbers are names."""
    assert check_run_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "-a", "_a", "a\n", "x" * 64, "ä"])
def test_what_could_leave_its_folder_is_no_name(name):
    """Names that are empty, too long, or could mean another place are refused."""
    with pytest.raises(UsageError, match="is not a name"):
        check_run_name(name)


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], "zebra"),
        (["zebra"], "zebra2"),
        (["zebra", "zebra2", "zebra10"], "zebra11"),
        (["zebra7"], "zebra8"),
        (["zebras", "zebra_2"], "zebra"),
    ],
)
def test_a_new_run_takes_the_next_free_name(taken, free):
    """A family's next name comes after all that were taken, and other families do not count."""
    assert next_free_name("zebra", taken) == free


def test_a_number_at_the_end_is_not_part_of_the_family():
    """A run belongs to the family that its name begins with."""
    assert [family_of(name) for name in ("zebra", "zebra2", "zebra_12", "12")] == ["zebra", "zebra", "zebra_", "12"]


def test_of_two_creations_one_wins(store):
    """A second record of the same name is refused and changes nothing."""
    assert Run(store, "zebra").create(record("zebra"))
    assert not Run(store, "zebra").create(record("zebra", recipe="B"))
    assert Run(store, "zebra").record() == record("zebra")


def test_runs_are_listed_in_the_order_of_their_numbers(store):
    """Ten comes after two."""
    for name in ("zebra10", "zebra", "zebra2", "ant"):
        Run(store, name).create(record(name))
    assert [found.run.name for found in survey(store).runs] == ["ant", "zebra", "zebra2", "zebra10"]


def test_a_later_claim_supersedes_an_earlier_one(store):
    """An attempt may continue until another one has claimed the run."""
    run = Run(store, "zebra")
    first = run.claim({})
    first.require_current()
    second = run.claim({})
    second.require_current()
    with pytest.raises(SupersededError, match="attempt 1 was superseded by attempt 2"):
        first.require_current()


def test_a_claim_says_how_the_one_before_it_ended(store):
    """An attempt that left no word has vanished, and the first word of one that did stands."""
    run = Run(store, "zebra")
    first = run.claim({})
    second = run.claim({})
    assert run.attempt(first.attempt).claim.previous_ended is None
    second.end("failed", {"message": "loss is not a number"})
    second.end("finished", {})
    third = run.claim({})
    assert run.attempt(second.attempt).claim.previous_ended == {"reason": "vanished"}
    assert run.attempt(third.attempt).claim.previous_ended["reason"] == "failed"


def test_two_claims_at_once_are_two_attempts(store, monkeypatch):
    """Two machines that look alike and claim a run in the same instant do not get the same number."""
    monkeypatch.setattr(module, "now", lambda: "2026-01-01T00:00:00.000+00:00")
    looks = iter([[], [1]])
    other = Run(store, "zebra")
    monkeypatch.setattr(other, "attempt_numbers", lambda: next(looks))
    assert (Run(store, "zebra").claim({}).attempt, other.claim({}).attempt) == (1, 2)


def test_the_number_of_a_lost_claim_is_not_used_again(store):
    """The next attempt's number is one more than the highest, though lower ones are missing."""
    run = Run(store, "zebra")
    run.claim({})
    run.claim({})
    store.delete("runs/zebra/attempts/0001.json")
    assert run.claim({}).attempt == 3


def test_what_an_attempt_began_with_is_written_once(store):
    """A second record of an attempt's beginning is refused, and the first one stands."""
    run = Run(store, "zebra")
    run.claim({}).start({"differs": ["first"]})
    with pytest.raises(PreconditionError):
        Claim(run, 1).start({"differs": ["second"]})
    assert run.attempt(1).start.differs == ["first"]


def test_the_same_request_finds_its_run_again(store):
    """Without a name, a request means the run that was asked for in the same way, or a new one."""
    for name, recipe in (("yolov11_wildlife", "base"), ("yolov11_wildlife2", "A"), ("other", "C")):
        Run(store, name).create(record(name, recipe=recipe))
    found, existing = find_run(store, None, record("any", recipe="A").request)
    assert (found.name, existing is not None) == ("yolov11_wildlife2", True)
    new, nothing = find_run(store, None, record("any", recipe="C").request)
    assert (new.name, nothing) == ("yolov11_wildlife3", None)


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("wildlife", ["yolov11_wildlife", "yolov11_wildlife2", "yolov11_wildlife3"]),
        ("wildlife-demo", ["yolov11_wildlife", "yolov11_wildlife2"]),
        (None, ["yolov11_wildlife", "yolov11_wildlife2"]),
        ("zebras", ["yolov11_zebras", "yolov11_zebras2"]),
        ("coco128", ["yolov11_coco128_1", "yolov11_coco128_2", "yolov11_coco128_3"]),
        ("coco1", ["yolov11_coco1_1", "yolov11_coco1_2"]),
        ("2024", ["yolov11_2024_1", "yolov11_2024_2"]),
        ("zebras.v2", ["yolov11_zebras-v2_1", "yolov11_zebras-v2_2"]),
        ("zoo-", ["yolov11_zoo-1", "yolov11_zoo-2"]),
        ("z" * 300, [f"yolov11_{'z' * 42}", f"yolov11_{'z' * 42}2"]),
    ],
)
def test_unnamed_runs_on_a_dataset_are_a_family_of_their_own(dataset, names):
    """Runs are named after their dataset and numbered; whatever it ends in, each name belongs to the family, and no
    name of another dataset's family is taken for one of its numbers.
    """
    family = default_families(dataset)[0]
    taken = ["yolov11_coco1284", "yolov11_coco", "yolov11_zebras-v", "zebras7", "yolov11_zo"]
    for name in names:
        assert (next_free_name(family, taken), family_of(name), check_run_name(name)) == (name, family, name)
        taken.append(name)
    assert default_families(dataset)[-1] == "yolov11_wildlife"


def test_another_request_for_a_named_run_is_refused_with_every_difference(store):
    """A named run that was asked for differently is refused, with the keys and both values."""
    Run(store, "zebra").create(record("zebra"))
    with pytest.raises(RunConflictError) as raised:
        find_run(store, "zebra", record("zebra").request | {"recipe": "B", "train": {"epochs": 5}})
    assert raised.value.problems == (
        "recipe: the run has 'A', asked for 'B'",
        "train.epochs: the run has 3, asked for 5",
    )


def test_differences_name_keys_on_either_side():
    """A key that one side lacks is a difference."""
    assert differences({"a": 1}, {"b": 2}) == ["a: the run has 1, asked for None", "b: the run has None, asked for 2"]


def test_a_final_record_stands(store):
    """A run that is finished a second time keeps its first final record, which is what the second one gets."""
    run = Run(store, "zebra")
    first = run.finish(final_content(reason="complete"))
    assert run.finish(final_content(reason="stopped early")) == first == run.final()
    assert first.reason == "complete"


def test_a_heartbeat_replaces_the_one_before(store):
    """A heartbeat is written again and again, and the last one is read."""
    run = Run(store, "zebra")
    run.claim({})
    for number in (1, 2):
        Claim(run, 1).heartbeat({"position": {"epoch": number, "batch": 0}})
    assert run.attempt(1).position == (2, 0)


def test_the_first_request_to_stop_stands(store):
    """A second request to stop does not change the first."""
    run = Run(store, "zebra")
    Claim(run, 1).ask_to_stop("here")
    Claim(run, 1).ask_to_stop("there")
    assert Claim(run, 1).stop_request().host == "here"


def test_a_copied_folder_is_not_the_run_that_was_copied(store):
    """A record of another run is ignored, so that it is not resumed under another name."""
    Run(store, "zebra").create(record("zebra"))
    store.put("runs/gnu/run.json", store.read("runs/zebra/run.json"))
    assert Run(store, "gnu").record() is None


def test_a_path_that_is_not_utf_8_is_recorded(store):
    """The end of an attempt is recorded and read whatever bytes its message has."""
    claim = Run(store, "zebra").claim({})
    claim.end("failed", {"message": "/data/caf\udce9: no such file"})
    assert Run(store, "zebra").attempt(1).end.message == "/data/caf?: no such file"


@pytest.mark.parametrize(("asked", "classes"), [({}, None), ({"classes": 3}, [3]), ({"classes": [0, 2]}, [0, 2])])
def test_training_arguments_of_a_record_are_complete(asked, classes):
    """Those that a request leaves out have their defaults, and one class alone is a list."""
    found = record("zebra", train={"epochs": 5, **asked})
    assert (found.train["epochs"], found.train["tiles"], found.classes) == (5, 0, classes)
