"""The alerts match the messages that the job logs. Cloud Logging itself is not here; its filters are read by hand."""

import json
import re

import pytest

from job.runs.records import CheckpointId
from tests.support.cli_process import job
from tests.support.terraform import needs_terraform


@pytest.fixture
def filters(applied):
    """The filters on logs, as Cloud Logging gets them."""
    expression = "jsonencode({failed = local.failed_for_good, commits = google_logging_metric.commits.filter})\n"
    return json.loads(json.loads(applied.run("terraform", "console", stdin=expression).stdout))


@needs_terraform
@pytest.mark.parametrize(
    ("words", "code", "raises"),
    [(["--recipe", "nonsense"], 65, True), (["--no-such-flag", "1"], 2, True), ([], None, False)],
)
def test_a_job_that_fails_for_good_raises_the_alert(filters, words, code, raises):
    """The last line of a job that failed is found by the alert, both where Cloud Logging reads it as JSON and where
    it stays text, and other lines are not.
    """
    codes = {int(number) for number in re.search(r"exit_code = \(([^)]*)\)", filters["failed"])[1].split(" OR ")}
    text = json.loads(re.search(r'jsonPayload\.message =~ (".*")', filters["failed"])[1])
    if words:
        done = job("train", *words)
        assert done.returncode == code
        line = done.stderr.splitlines()[-1]
    else:
        line = json.dumps({"severity": "ERROR", "message": "the bucket kept failing", "exit_code": 75})
    assert (json.loads(line)["exit_code"] in codes) is raises
    assert (re.search(text, line) is not None) is raises


@needs_terraform
def test_each_commit_counts_as_progress(filters):
    """A commit is found by the metric whether it comes after an epoch or between two."""
    phrases = re.findall(r'"(committed [^"]*)"', filters["commits"])
    for checkpoint in (CheckpointId(3, 0, 1), CheckpointId(3, 5, 1)):
        assert any(phrase in f"committed {checkpoint.position}: 4.2 MB" for phrase in phrases)
