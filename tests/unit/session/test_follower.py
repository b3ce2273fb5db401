"""Non-zero ranks before they train."""

from contextlib import nullcontext
from types import SimpleNamespace

from job.session.follower import follow


def test_ultralytics_is_isolated_before_a_plan_imports_it():
    """A plan of rank 0 imports Ultralytics where it is unpickled, which by then reads and writes our folder alone."""
    calls = []
    here = SimpleNamespace(isolate_training=lambda: calls.append("isolated"))
    group = SimpleNamespace(rank=1, broadcast=lambda _none: calls.append("plan"))
    follow(SimpleNamespace(group=group, in_folder=lambda _owner: nullcontext(here)))
    assert calls == ["isolated", "plan"]
