"""A bucket that the version before typed records wrote is read, and one of a newer version is refused."""

import json
import shutil
from pathlib import Path

import pytest

from job.analysis.campaign import Campaign
from job.analysis.summary import read_summary
from job.cli.app import main
from job.cloud.submission import Submissions
from job.datasets.lockfile import DatasetLock
from job.errors import EndReason, UnreadableRecordError
from job.runs import checkpoint
from job.runs.cost import read_cost
from job.runs.listing import RunListing
from job.runs.run import Run
from job.storage.local import FolderStore

BUCKET = Path(__file__).parents[2] / "fixtures" / "bucket_before_typed_records"

LOCK = "datasets/tiny/versions/0001.lock.json"

RECORDS = [path.relative_to(BUCKET / "runs" / "zebra").as_posix() for path in (BUCKET / "runs").rglob("*.json")]


@pytest.fixture
def store(tmp_path):
    """A bucket with the records of a run that vanished, was paused, and was finished; and of a campaign."""
    shutil.copytree(BUCKET, tmp_path / "bucket")
    store = FolderStore(tmp_path / "bucket")
    change(Run(store, "zebra"), "segments/0001.json", {"bucket": store.uri})  # is checked
    return store


@pytest.fixture
def run(store):
    """The run."""
    return Run(store, "zebra")


def change(run, name, content):
    """Change one of the run's records."""
    record = json.loads(run.store.read(run.key(name))) | content
    run.store.put(run.key(name), json.dumps(record).encode(), overwrite=True)


def read_all(run):
    """Read every record of a run."""
    for read in (run.record, run.final, RunListing(run).attempts, lambda: checkpoint.set_aside(run)):
        read()
    for identity in checkpoint.committed(run):
        checkpoint.read_manifest(run, identity)
    submissions = Submissions(run)
    for submission in submissions.list():
        submissions.job_uid(submission.number)


def test_every_record_of_the_version_before_is_read(run):
    """Its request, attempts, checkpoints and end are those that were recorded."""
    record, final = run.record(), run.final()
    assert (record.request["recipe"], record.request["train"]["epochs"]) == ("base", 4)
    assert (record.start.point.kind, record.start.point.architecture) == ("scratch", "yolo11n.yaml")
    assert (record.dataset.name, record.facts.batch, record.facts.device) == ("tiny", 4, "cpu")
    vanished, paused, finished = RunListing(run).attempts()
    assert (vanished.end, vanished.position, paused.stop.host) == (None, (0, 0), "vm")
    assert (paused.end.reason, paused.position, finished.end.reason) == (EndReason.PAUSED, (2, 1), EndReason.FINISHED)
    assert (str(finished.receipt.checkpoint), finished.receipt.saved) == ("0002-000001.a0002", finished.receipt.loaded)
    manifests = [checkpoint.read_manifest(run, identity) for identity in checkpoint.committed(run)]
    assert [manifest.id.position for manifest in manifests] == [(3, 0), (4, 0)]
    assert (final.reason, final.num_epochs, len(final.course), final.bits.exact) == ("complete", 4, 4, True)


def test_epochs_of_a_final_record_are_written_as_whole_numbers(run):
    """A final record that has them as 1.0, as earlier versions wrote them, is read, and written with 1."""
    course = [
        row | {"epoch": float(row["epoch"])} for row in json.loads(run.store.read(run.key("final.json")))["course"]
    ]
    change(run, "final.json", {"course": course})
    written = json.loads(run.final().to_json())["course"]
    assert [repr(row["epoch"]) for row in written] == ["1", "2", "3", "4"]


def test_what_such_a_run_took_is_reckoned_from_its_records(run):
    """Each attempt has its state and its price, and the summary costs what the run does."""
    cost = read_cost(run)
    assert [attempt.ended for attempt in cost.attempts] == ["vanished", "paused", "finished"]
    assert [attempt.price.usd_per_h for attempt in cost.attempts] == [0.36] * 3
    assert read_summary(run, run.record()).usd == cost.usd


def test_such_a_run_is_shown(store, capsys):
    """`job runs show` has a line for each attempt and checkpoint, for people and as JSON; only the offline logs of W&B,
    which are not used any more, are left out.
    """
    assert main(["runs", "show", "zebra", "--bucket", store.uri]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("run         zebra, complete, 4 epochs\n")
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("attempt ")] == ["1", "2", "3"]
    between = [line for line in shown.splitlines() if line.startswith("between ")]
    assert ["unknown" in line for line in between] == [True, True, False]  # the last is the sum
    assert main(["runs", "show", "zebra", "--json", "--bucket", store.uri]) == 0
    shown = json.loads(capsys.readouterr().out)
    for part, name in (("start", "start"), ("pulse", "pulse"), ("stop", "stop"), ("end", "end")):
        path = BUCKET / f"runs/zebra/attempts/0002.{name}.json"
        recorded = json.loads(path.read_text())
        recorded.pop("curve", None)
        assert shown["attempts"][1][part] == recorded


def test_campaigns_submissions_and_datasets_of_the_version_before_are_read(store, run):
    """Their goals, placements and versions are those that were recorded."""
    campaign = Campaign(store, "zoo")
    record = campaign.record()
    assert (record.goal.target_f1, record.bound.total, campaign.steps()[0].run) == (0.68, 4.5, "zoo-1-A")
    assert campaign.result().reason == "budget spent"
    (submission,) = Submissions(run).list()
    assert (submission.placement.machine, submission.max_usd) == ("g2-standard-8", 50.0)
    assert DatasetLock.parse(store.read(LOCK), LOCK).digest == run.record().dataset.digest


@pytest.mark.parametrize("name", [name for name in RECORDS if "checkpoints/" not in name])
def test_a_record_of_a_newer_version_is_refused(run, name):
    """The object is named, and that the job has to be updated."""
    change(run, name, {"schema": 2})
    with pytest.raises(UnreadableRecordError) as raised:
        read_all(run)
    assert (
        str(raised.value) == f"runs/zebra/{name}: was written by a newer version of the job (schema 2); update the job"
    )


def test_a_checkpoint_of_a_newer_version_is_refused_and_not_set_aside(run, tmp_path):
    """It is whole and another version resumes from it, so this one does not fall back to the checkpoint before."""
    newest = checkpoint.committed(run)[-1]
    name = f"checkpoints/{newest}/manifest.json"
    manifest = json.loads(run.store.read(run.key(name))) | {"schema": 2}
    del manifest["seal"]
    run.store.put(run.key(name), checkpoint._sealed(manifest), overwrite=True)
    with pytest.raises(UnreadableRecordError, match=r"newer version of the job \(schema 2\); update the job"):
        checkpoint.restore(run, tmp_path)
    assert checkpoint.committed(run)[-1] == newest


def test_a_campaign_of_a_newer_version_is_refused(store):
    """A campaign of a newer schema is refused with what to do."""
    key = "campaigns/zoo/campaign.json"
    store.put(key, json.dumps(json.loads(store.read(key)) | {"schema": 2}).encode(), overwrite=True)
    with pytest.raises(UnreadableRecordError, match=r"newer version of the job \(schema 2\); update the job"):
        Campaign(store, "zoo").record()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"seconds": {"idle": "long"}}, r"seconds\.idle: must be a number"),
        ({"seconds": {"asleep": "long"}}, r"seconds\.asleep: must be one of boot, .* got 'asleep'"),
        ({"reason": 7}, "reason: must be one of finished, .* got 7"),
    ],
)
def test_a_field_of_another_form_is_named(run, content, problem):
    """An error names the field by its place in the record, and what it must be."""
    change(run, "attempts/0003.end.json", content)
    with pytest.raises(UnreadableRecordError, match=rf"attempts/0003\.end\.json: .* {problem}"):
        run.attempt(3)
