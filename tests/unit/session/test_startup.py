"""The four ways in which an attempt starts."""

from types import SimpleNamespace

import pytest

from job.session import startup


@pytest.mark.parametrize(
    ("exists", "kind", "way"),
    [
        (True, "end", "resume_run"),
        (True, "own", "resume_run"),
        (False, "end", "extend_run"),
        (False, "own", "start_new_run"),
        (False, "scratch", "start_new_run"),
    ],
)
def test_a_run_that_exists_is_resumed_and_a_new_one_starts_as_its_recipe_says(monkeypatch, exists, kind, way):
    """An existing run is resumed whatever its recipe starts from; a new one extends another run, or starts anew."""
    for name in ("resume_run", "extend_run", "start_new_run"):
        monkeypatch.setattr(startup, name, lambda *_, name=name: name)
    request = SimpleNamespace(recipe=SimpleNamespace(start=SimpleNamespace(kind=kind)))
    record = SimpleNamespace() if exists else None
    assert startup.start(SimpleNamespace(request=request), None, record) == way
