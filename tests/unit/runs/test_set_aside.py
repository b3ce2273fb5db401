"""A checkpoint that was set aside, in all commands on checkpoints."""

import json

import pytest

from job.cli.app import main
from job.errors import CorruptObjectError
from job.runs import checkpoint
from tests.support.run_records import record_run


@pytest.fixture
def run(tmp_path):
    """A finished run of two checkpoints, the newest of which was set aside by a restoration."""
    run = record_run(tmp_path / "bucket", [0.6, 0.65, 0.7, 0.72])
    newest = checkpoint.committed(run)[-1]
    run.store.delete(run.key(f"checkpoints/{newest}/results.csv"))
    (tmp_path / "restored").mkdir()
    assert checkpoint.restore(run, tmp_path / "restored").id == checkpoint.committed(run)[0]
    assert list(checkpoint.set_aside(run)) == [newest]
    return run


def test_it_is_verified_apart(run, capsys):
    """`job runs verify` reports it with the reason, and counts the others alone; without any other it fails."""
    assert main(["runs", "verify", "zebra", "--bucket", run.store.uri]) in {0, 74}
    said = capsys.readouterr().out
    assert "0004-000000.a0002: set aside, runs/zebra/checkpoints/0004-000000.a0002/results.csv: is gone" in said
    assert "0002-000000.a0001: whole" in said
    run.store.delete(run.key("final.json"))
    assert main(["runs", "verify", "zebra", "--bucket", run.store.uri]) == 0
    assert "1 checkpoint, every byte equal to the commit; 1 set aside" in capsys.readouterr().out
    run.store.delete(run.key("checkpoints/0002-000000.a0001/manifest.json"))
    assert main(["runs", "verify", "zebra", "--bucket", run.store.uri]) == 74
    assert "has no intact checkpoint, found 1 set aside" in capsys.readouterr().err


def test_a_manifest_without_checksums_contradicts_where_something_is_wrong(run, tmp_path):
    """A manifest of a version that wrote no CRC-32C is held against sizes and SHA-256."""
    [remaining] = checkpoint.committed(run)
    key = run.key(f"checkpoints/{remaining}/manifest.json")
    content = json.loads(run.store.read(key))
    del content["seal"]
    for file in content["files"]:
        file["crc32c"] = None
    run.store.put(key, checkpoint._sealed(content), overwrite=True)
    run.store.delete(next(file["key"] for file in content["files"] if file["name"] == "results.csv"))
    (tmp_path / "again").mkdir()
    with pytest.raises(CorruptObjectError, match="has no intact checkpoint, found 2 set aside"):
        checkpoint.restore(run, tmp_path / "again")
    assert len(checkpoint.set_aside(run)[remaining]) == 1


def test_one_that_retention_deletes_meanwhile_is_left_out(run, monkeypatch):
    """A record that is gone between the listing and its reading is no error."""
    monkeypatch.setattr(run, "read", lambda _kind, _name: None)
    assert checkpoint.set_aside(run) == {}


def test_it_is_shown_apart(run, capsys):
    """`job runs show` shows it as set aside and not as a checkpoint, for people and for machines."""
    assert main(["runs", "show", "zebra", "--bucket", run.store.uri]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "set aside checkpoint 0004-000000.a0002, runs/zebra/checkpoints/0004-000000.a0002/results.csv: is gone" in said
    )
    assert said.count(" MB ") == 1
    assert main(["runs", "show", "zebra", "--bucket", run.store.uri, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [entry["epoch"] for entry in shown["checkpoints"]] == [2]
    assert list(shown["set_aside"]) == ["0004-000000.a0002"]


def test_a_run_is_shown_by_its_remaining_checkpoints(run, capsys):
    """`job runs list` counts the epochs of the newest checkpoint that was not set aside."""
    run.store.delete(run.key("final.json"))
    assert main(["runs", "list", "--bucket", run.store.uri]) == 0
    assert "2/4" in capsys.readouterr().out.splitlines()[1].split()
