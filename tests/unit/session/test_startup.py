"""The four ways in which an attempt starts."""

import sys
from types import SimpleNamespace

import pytest

from job.errors import RunConflictError
from job.runs.records import InitialWeights
from job.session import startup
from job.training.distributed import ProcessGroup
from tests.support.bucket_records import recorded


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


@pytest.mark.parametrize(
    ("exists", "num_threads", "max_det", "mosaic_stride"), [(True, 1, 300, 8), (False, 7, None, 12)]
)
def test_a_run_keeps_on_any_machine_what_decides_its_bits(
    monkeypatch, tmp_path, exists, num_threads, max_det, mosaic_stride
):
    """Threads, the limit of detections and the stride of mosaics of a resumed run are those of its record, which need
    not have the last one; a new run decides them here.
    """
    monkeypatch.setitem(sys.modules, "job.training.loop", SimpleNamespace(Training=lambda plan: plan))
    monkeypatch.setitem(sys.modules, "job.training.trainer", SimpleNamespace(Plan=SimpleNamespace))
    monkeypatch.setattr(startup.environment, "num_threads", lambda: 7)
    monkeypatch.setattr(startup, "num_cores", lambda: 6)
    recipe = SimpleNamespace(train={"max_det": 1000, "batch": 4, "imgsz": 64}, given=())
    request = SimpleNamespace(recipe=recipe, device="", workers=8, new_classes=False)
    context = SimpleNamespace(request=request, folder=tmp_path, group=ProcessGroup(), isolate_training=lambda: None)
    record = recorded().record if exists else None
    point = InitialWeights("scratch", None, "yolo11n.yaml")
    plan = startup.set_up(
        context, SimpleNamespace(yaml=tmp_path, pixels=None, shapes={"a.jpg": (1, 2)}), point, None, record=record
    )
    assert (plan.num_threads, plan.train["max_det"], plan.resumed) == (num_threads, max_det, exists)
    assert plan.mosaic_stride == mosaic_stride
    assert plan.shapes == {"a.jpg": (1, 2)}


def test_a_run_whose_record_has_no_stride_keeps_that_of_its_version():
    """A record of an older version is that of a run with a stride of 8, which is not refused for it."""
    record = recorded().record
    facts = record.facts.model_dump(exclude_unset=True)
    assert "mosaic_stride" not in facts
    startup._require_same_facts(record, SimpleNamespace(facts=facts | {"mosaic_stride": 8}))
    with pytest.raises(RunConflictError, match="would train it differently"):
        startup._require_same_facts(record, SimpleNamespace(facts=facts | {"mosaic_stride": 12}))
