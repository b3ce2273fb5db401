"""``job audit`` before any model is loaded."""

import pytest

from job.cli.app import main
from tests.support.labelled_run import make_labelled_run


@pytest.fixture
def weights(tmp_path):
    """A file in the place of weights."""
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def refused(capsys, tmp_path, weights):
    """Returns the exit code and the log of an audit that is refused."""
    bucket = make_labelled_run(tmp_path, weights)
    capsys.readouterr()

    def audit(*words):
        code = main(["audit", "zebra", *map(str, words), "--bucket", bucket, "--workdir", str(tmp_path / "work")])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return audit


def test_a_place_that_cannot_be_written_is_refused_before_the_audit(refused, tmp_path, weights):
    """Nothing is fetched for an audit whose files have no place."""
    code, said = refused("--out", weights)
    assert (code, f"bucket {weights}: there is a file where a folder is needed" in said) == (74, True)
    assert not (tmp_path / "work" / "datasets").exists()


@pytest.mark.parametrize("name", ["audit-val.csv", "audit-val.html"])
def test_files_that_are_there_are_not_replaced(refused, tmp_path, name):
    """A table of an earlier audit, which may have been worked on, stays; another split has other names."""
    mine = tmp_path / "found" / name
    mine.parent.mkdir()
    mine.write_text("mine")
    code, said = refused("--out", mine.parent)
    assert (code, f"has {name} already; move it away, or choose another --out" in said) == (65, True)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "work" / "datasets").exists()
    assert "already" not in refused("--out", mine.parent, "--split", "test")[1]


@pytest.mark.parametrize(("name", "advice"), [("tyny", "did you mean 'tiny'?"), ("../tiny", "did you mean 'tiny'?")])
def test_a_dataset_that_is_none_is_refused_by_its_name(refused, tmp_path, name, advice):
    """It is named with the one that was meant, and no folder of that name is made."""
    code, said = refused("--dataset", name)
    assert (code, f"dataset {name!r}: there is none of that name" in said, advice in said) == (65, True, True)
    assert not (tmp_path / "work" / "datasets").exists()


def test_sizes_of_objects_are_shown_at_the_image_size_of_the_run(refused):
    """The audit looks at the pictures at that size; it ends at a split that is not there."""
    code, said = refused("--split", "test")
    assert (code, "px at 64 px" in said) == (65, True)
