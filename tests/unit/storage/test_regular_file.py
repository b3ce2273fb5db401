"""Files that are opened only if they are regular."""

import pytest

from job.storage.regular_file import open_regular


def test_links_are_followed_only_if_asked(tmp_path):
    """A link leads neither a read nor a write out of its folder, also if its target does not exist."""
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    for path, append in ((tmp_path / "link", False), (tmp_path / "link", True), (tmp_path / "dangling", True)):
        with pytest.raises(OSError, match="symbolic links"):
            open_regular(path, append=append)
    assert not (tmp_path / "new").exists()
    with open_regular(tmp_path / "link", follow_links=True) as opened:
        assert opened.read() == b"secret"
