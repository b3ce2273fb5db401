"""The folders of attempts in a working folder."""

from job.storage.workdir import LOCK, attempt_folder


def test_what_a_killed_attempt_left_is_removed(tmp_path):
    """The next attempt removes the folder of one that was killed, also while it made it, and of none that lives."""
    left, begun = tmp_path / "runs/zebra-01234567", tmp_path / "runs/.zebra-01234567"
    left.mkdir(parents=True)
    (left / LOCK).write_text("")
    begun.mkdir()
    with attempt_folder(tmp_path, "lion") as lives, attempt_folder(tmp_path, "lion") as folder:
        assert [path.exists() for path in (left, begun, lives, folder)] == [False, False, True, True]
    assert list((tmp_path / "runs").iterdir()) == []


def test_folders_of_the_users_own_stay(tmp_path):
    """Runs that other programs wrote beside those of attempts are left unchanged, whatever their names."""
    for name in ("detect", "zebra-01234567", "locked"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "best.pt").write_text("mine")
    (tmp_path / "runs/locked" / LOCK).write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    with attempt_folder(tmp_path, "lion"):
        pass
    assert sorted(path for path in tmp_path.rglob("*")) == before
