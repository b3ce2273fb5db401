"""Malformed records, foreign or of another version, are reported, and stop only their own run."""

import json

import pytest

from job.analysis.campaign import Campaign
from job.cli.app import main
from job.errors import CorruptObjectError
from job.runs.request import known_recipe
from job.storage.local import FolderStore
from job.storage.object_store import RECORD_BYTES
from tests.support.bucket_records import put_recorded, recorded

SOUND, FOREIGN = "yolov11_wildlife", "yolov11_wildlife2"

CHANGES = {
    "attempts/0001.json": [
        b"x",
        [],
        {"claimed_at": "soon"},
        {"price": {"usd_per_h": "x"}},
        {"price": {"usd_per_h": -1}},
    ],
    "attempts/0001.end.json": [{"ended_at": None}, {"seconds": {"nonsense": "x"}}, {"seconds": {"idle": "x"}}],
    "final.json": [b"x", [], {"comparison": {}}, {"finished_at": 7}, {"course": [{}]}, {"num_epochs": 0}],
    "run.json": [b"[" * 100_000, [], {"request": {}}, {"dataset": {}}, {"start": {}}, {"facts": {}}, {"facts": 7}],
}
"""By its key, bytes, a content, or what differs from a sound record."""


@pytest.fixture
def bucket(tmp_path):
    """Two finished runs, the second of which is the better one and will be changed."""
    (tmp_path / "bucket").mkdir()
    store = FolderStore(tmp_path / "bucket")
    store.put("datasets/wildlife/data.yaml", b"names: [zebra]\n")
    put_recorded(store, recorded("base", run=SOUND, course=(0.5, 0.58)))
    put_recorded(store, recorded("A", run=FOREIGN, course=(0.6, 0.66)))
    return store


def change(store, key, content):
    """Replace or change the content of a record; return the former one."""
    sound = store.read(key)
    changed = json.loads(sound) | content if isinstance(content, dict) else content
    store.put(key, changed if isinstance(changed, bytes) else json.dumps(changed).encode(), overwrite=True)
    return sound


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_of_another_form_stops_no_other(bucket, capsys, name):
    """The list, the advice, an estimate and a new training pass it over, and say so where they would need it."""
    for content in CHANGES[name]:
        sound = change(bucket, f"runs/{FOREIGN}/{name}", content)
        for words in (["runs", "list"], ["advise"], ["advise", SOUND], ["estimate", "--recipe", "A", "--machine", "l4"],
                      ["train", "--recipe", "A", "--dry-run"]):  # fmt: skip
            capsys.readouterr()
            assert main([*words, "--bucket", bucket.uri]) == 0, (content, words)
            said = capsys.readouterr()
            assert SOUND in said.out or words[0] == "estimate"
        bucket.put(f"runs/{FOREIGN}/{name}", sound, overwrite=True)


@pytest.mark.parametrize("name", CHANGES)
def test_a_malformed_run_is_refused(bucket, capsys, name):
    """A command for that run names the record, without a traceback."""
    for content in CHANGES[name]:
        sound = change(bucket, f"runs/{FOREIGN}/{name}", content)
        for words in (["runs", "show", FOREIGN], ["runs", "show", FOREIGN, "--json"], ["advise", FOREIGN],
                      ["compare", SOUND, FOREIGN]):  # fmt: skip
            capsys.readouterr()
            code = main([*words, "--bucket", bucket.uri])
            assert code in ({0, 74} if words[0] == "runs" else {74}), (content, words)
            assert code == 0 or FOREIGN in capsys.readouterr().err
        bucket.put(f"runs/{FOREIGN}/{name}", sound, overwrite=True)


def test_a_record_that_is_too_large_is_refused(bucket, capsys):
    """A record over the limit ends a command for its run with exit code 65, and stops no list."""
    change(bucket, f"runs/{FOREIGN}/run.json", b"[" * (RECORD_BYTES + 1))
    assert main(["runs", "list", "--bucket", bucket.uri]) == 0
    assert SOUND in capsys.readouterr().out
    assert main(["runs", "show", FOREIGN, "--bucket", bucket.uri]) == 65
    assert f"runs/{FOREIGN}/run.json: is too large to be read, more than 64 MB" in capsys.readouterr().err


def test_a_reason_and_a_phase_of_a_later_version_are_shown_as_unknown(bucket, capsys):
    """An attempt that ended by a reason, after phases, which this version does not know keeps the run readable."""
    bucket.delete(f"runs/{FOREIGN}/final.json")
    later = {"reason": "evicted", "seconds": {"useful step": 6.0, "warming": 3.0, "cooling": 1.0}}
    change(bucket, f"runs/{FOREIGN}/attempts/0001.end.json", later)
    assert main(["runs", "list", "--bucket", bucket.uri]) == 0
    assert "unknown" in capsys.readouterr().out.splitlines()[2].split()
    assert main(["runs", "show", FOREIGN, "--bucket", bucket.uri]) == 0
    said = capsys.readouterr().out
    assert "unknown after" in said
    assert ["all", "10.0", "s"] in [line.split()[:3] for line in said.splitlines()]  # none is lost from the sum


def test_a_start_that_names_no_environment_is_read(bucket, capsys):
    """A run whose attempts recorded less of their start than they do today is advised on and compared."""
    start = {"schema": 1, "started_at": "2026-11-23T10:00:00.000+00:00", "receipt": None}
    bucket.put(f"runs/{FOREIGN}/attempts/0001.start.json", json.dumps(start).encode())
    for words in (["advise", FOREIGN], ["compare", SOUND, FOREIGN]):
        assert main([*words, "--bucket", bucket.uri]) == 0
        assert FOREIGN in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["dataset", "model", "new_classes", "quarantine"])
def test_an_unfinished_run_of_another_form_does_not_keep_a_new_one_from_beginning(bucket, capsys, missing):
    """Its recorded request is compared with a new one; where that is impossible it is skipped."""
    bucket.delete(f"runs/{FOREIGN}/final.json")
    record = json.loads(bucket.read(f"runs/{FOREIGN}/run.json"))
    del record["request"][missing]
    bucket.put(f"runs/{FOREIGN}/run.json", json.dumps(record).encode(), overwrite=True)
    assert main(["train", "--recipe", "base", "--epochs", "7", "--dry-run", "--bucket", bucket.uri]) == 0
    assert f"runs/{FOREIGN}: is not a run that this version can read" in capsys.readouterr().err


def test_a_record_leads_to_no_file_of_this_machine(tmp_path):
    """A run or a step of a campaign that calls its recipe by a path has none of it read."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("start: yolo11n.pt\ntrain: {epochs: 7}\n")
    assert known_recipe({"recipe": str(mine), "profile": "full"}).name == "base"
    store = FolderStore.create(str(tmp_path / "bucket"))
    step = {"number": 1, "recipe": str(mine), "run": "zebra", "weights": None, "rule": "", "because": ""}
    for content in (step, {"number": 1}, step | {"recipe": "A", "run": "../zebra"}, step | {"recipe": []}):
        store.put("campaigns/campaign/steps/0001.json", json.dumps(content).encode(), overwrite=True)
        with pytest.raises(
            CorruptObjectError,
            match=r"steps/0001.json: has another form than this version reads, .*(recipe|run|number)",
        ):
            Campaign(store, "campaign").steps()


def test_a_final_record_that_cannot_be_read_is_listed(bucket, capsys):
    """Its run keeps its line, which says that it cannot be read, and the reason is logged."""
    change(bucket, f"runs/{FOREIGN}/final.json", {"comparison": {}})
    assert main(["runs", "list", "--bucket", bucket.uri]) == 0
    said = capsys.readouterr()
    assert "cannot be read" in said.out.splitlines()[2]
    assert f"runs/{FOREIGN}/final.json: has another form than this version reads, comparison.before" in said.err
