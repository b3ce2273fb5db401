"""Campaigns: the decision after each run, and records that survive any interruption."""

import dataclasses
import json

import pytest

from job.analysis.campaign import (
    Bound,
    Campaign,
    CampaignRecord,
    CampaignStep,
    End,
    Goal,
    best_of,
    find_campaign,
    next_step,
)
from job.cli.app import main
from job.cli.campaign import format_campaign
from job.errors import CampaignError, CorruptObjectError, PauseError, RunConflictError, UsageError
from job.report.campaign import render
from job.runs.run import Run
from job.session.campaign import go_on, here, on_batch
from job.storage.local import FolderStore
from job.training.evaluation_record import PictureCounts
from tests.support.bucket_records import missing, put_recorded, recorded, starting_from
from tests.support.split_evaluation import record_evaluation

GOAL = Goal(
    target_f1=0.72, max_runs=4, max_usd=None, profile="full", dataset="wildlife", weights=None,
    arguments={"epochs": "3"},
)  # fmt: skip

FLAT = (0.2, *[1.0] * 11)
"""The shape of a course that ends on a plateau."""


def ended(recipe, f1, **more):
    """Return the summary of a finished run that ends on a plateau."""
    return recorded(recipe, course=tuple(f1 * value for value in FLAT), **{"run": f"zoo-{recipe}", **more})


def decided(*finished, goal=GOAL, usd_per_hour=None):
    """Return what comes after some runs."""
    return next_step(CampaignRecord(campaign="zoo", goal=goal), finished, usd_per_hour, bucket="gs://zoo")


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


class Stage:
    """A place that trains nothing: each run ends with the metrics that are set for its recipe."""

    def __init__(self, store, f1, exit_codes=(), *, bounds=False):
        self.store, self.f1, self.exit_codes, self.trained, self.bounds = store, f1, list(exit_codes), [], bounds

    def train(self, words):
        named = dict(word.removeprefix("--").split("=", 1) for word in words)
        self.trained.append(named)
        code = self.exit_codes.pop(0) if self.exit_codes else None
        if code is None:
            f1 = self.f1[named["recipe"]]
            put_recorded(self.store, ended(named["recipe"], f1, run=named["run"], usd_per_hour=1.0))
        return code or 0


def test_recipe_a_comes_first():
    """A campaign begins with A, from the weights that were named."""
    first = decided(goal=dataclasses.replace(GOAL, weights="lion"))
    assert (first.number, first.recipe, first.run, first.weights) == (1, "A", "zoo-1-A", "lion")
    words = first.train_args(GOAL)
    assert words == [
        *("--recipe=A", "--run=zoo-1-A", "--profile=full", "--dataset=wildlife", "--weights=lion", "--epochs=3")
    ]


@pytest.mark.parametrize(
    ("finished", "recipe", "weights"),
    [
        ([ended("A", 0.69)], "C", "zoo-A"),
        ([ended("A", 0.66)], "B", None),
        ([ended("A", 0.69), ended("C", 0.70)], "B", None),
        ([ended("A", 0.66), ended("B", 0.70)], "transfer", None),
    ],
)
def test_the_next_run_follows_from_the_rules(finished, recipe, weights):
    """C comes after an A of 68 % or more, from its weights; B after one that was not enough; and so on."""
    step = decided(*finished)
    assert (step.number, step.recipe, step.weights) == (len(finished) + 1, recipe, weights)


@pytest.mark.parametrize(
    ("finished", "goal", "usd_per_hour", "reason"),
    [
        ([ended("A", 0.73)], GOAL, None, "target reached"),
        ([ended("A", 0.66)], dataclasses.replace(GOAL, target_f1=0.6), None, "target reached"),
        ([ended("A", 0.66)], dataclasses.replace(GOAL, max_runs=1), None, "budget spent"),
        ([ended("A", 0.66), ended("B", 0.70), ended("transfer", 0.70)], GOAL, None, "nothing helps"),
        ([ended("A", 0.66, usd_per_hour=1.0)], dataclasses.replace(GOAL, max_usd=16.0), 1.0, "budget spent"),
        ([], dataclasses.replace(GOAL, max_usd=7.0), 1.0, "budget spent"),
        ([ended("A", 0.66)], dataclasses.replace(GOAL, max_usd=99.0), 1.0, "cost unknown"),
        ([], dataclasses.replace(GOAL, max_usd=99.0, profile="demo"), 1.0, "cost unknown"),
    ],
)
def test_a_campaign_ends_for_a_reason(finished, goal, usd_per_hour, reason):
    """The target, the number of runs, the dollars that are spent or would be or are not known, and the end of what
    helps each end it.
    """
    end = decided(*finished, goal=goal, usd_per_hour=usd_per_hour)
    assert isinstance(end, End)
    assert end.reason == reason


def test_dollars_that_suffice_end_nothing():
    """A run that fits into the rest of the budget is begun: 0.3 USD are spent, and B takes up to 16."""
    goal = dataclasses.replace(GOAL, max_usd=16.5)
    assert decided(ended("A", 0.66, usd_per_hour=1.0), goal=goal, usd_per_hour=1.0).recipe == "B"


def test_a_campaign_trains_on_tiles_where_small_objects_are_missed(store):
    """A run that misses small objects of large files is followed by T, from its weights, by what the bucket knows."""
    stage = Stage(store, {"A": 0.66, "T": 0.73})
    campaign = find_campaign(store, "zoo", GOAL)
    first = missing(ended("A", 0.66, run="zoo-1-A"), 60, 40, side_px=5472)
    campaign.add(decided())
    put_recorded(store, first)
    assert go_on(campaign, stage, None).best == "zoo-2-T"
    assert [(named["recipe"], named["weights"]) for named in stage.trained] == [("T", "zoo-1-A")]


def test_a_run_in_the_cloud_gets_what_is_left_of_the_dollars(store):
    """Where runs can be bounded each is given the rest of the limit, rounded down, and may be one whose cost is not
    known beforehand.
    """
    goal = dataclasses.replace(GOAL, max_usd=30.0)
    stage = Stage(store, {"A": 0.66, "B": 0.60, "transfer": 0.5}, bounds=True)
    go_on(find_campaign(store, "zoo", goal), stage, 1.0)
    assert [(named["recipe"], named["max-usd"]) for named in stage.trained] == [
        ("A", "30.00"), ("B", "29.70"), ("transfer", "29.40")
    ]  # fmt: skip


def test_a_campaign_in_the_cloud_has_a_bound_that_a_restart_keeps(store):
    """Each run gets no more than the limit of one, nor than what is left of the sum that was recorded first."""
    bound = Bound(run=0.5, total=1.0, usd=True)
    stage = Stage(store, {"A": 0.66, "B": 0.60, "transfer": 0.5}, bounds=True)
    campaign = find_campaign(store, "zoo", GOAL, bound)
    again = find_campaign(store, "zoo", GOAL, Bound(run=9.0, total=99.0, usd=True))
    assert (campaign.record().bound, again.record().bound) == (bound, bound)
    go_on(again, stage, 1.0)
    assert [named["max-usd"] for named in stage.trained] == ["0.50", "0.50", "0.40"]
    assert "It can cost 1.00 USD, up to 0.50 for each run at worst." in render(campaign)


def test_a_campaign_ends_when_its_bound_is_used_up():
    """Runs without a price count with the limit of a run; where dollars are unknown, machine hours are counted."""
    runs = [ended("A", 0.66), ended("B", 0.60)]
    for bound in (Bound(run=5.0, total=10.0, usd=True), Bound(run=1.0, total=0.5, usd=False)):
        record = CampaignRecord(campaign="zoo", goal=GOAL, bound=bound)
        end = next_step(record, runs, None, bucket="gs://zoo")
        assert (end.reason, str(bound) in end.because) == ("budget spent", True)
        assert isinstance(next_step(record, runs[:1], None, bucket="gs://zoo"), CampaignStep)


def test_the_bound_is_printed_before_anything_is_submitted(store, tmp_path, monkeypatch, capsys):
    """Without --max-usd it is the limit of the settings for each of the runs that are allowed."""
    (tmp_path / "cloud.yaml").write_text("project: zoo-project\nregion: us-central1\nmax_usd: 20\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("job.cli.campaign.go_on", lambda *_: None)
    monkeypatch.setattr("job.cli.campaign.format_campaign", lambda *_: [])
    store.put("datasets/wildlife/data.yaml", b"x")
    assert main(["campaign", "--cloud", "l4", "--max-runs", "3", "--bucket", store.uri]) == 0
    assert "can cost 60.00 USD, up to 20.00 for each run at worst" in capsys.readouterr().err
    assert Campaign(store, "campaign").record().bound == Bound(run=20.0, total=60.0, usd=True)


def test_runs_are_bounded_where_a_limit_can_be_given_to_them():
    """A run on Batch takes a limit; one on this machine does not, so what it costs has to be known beforehand."""
    assert on_batch("gs://zoo", "l4", []).bounds
    assert not here("zoo", [], 1.0).bounds


def test_the_reason_of_a_step_says_whether_the_last_gain_is_distinguishable(store):
    """The newest run is compared with the best before it on the pictures that both were measured on."""

    class MeasuredStage(Stage):
        def train(self, words):
            super().train(words)
            record_evaluation(Run(self.store, self.trained[-1]["run"]), pictures=[
                PictureCounts.of(f"{number}.jpg", [0, 0], [True, number % 2 == 0], [0], [True]) for number in range(20)
            ])  # fmt: skip
            return 0

    campaign = find_campaign(store, "zoo", GOAL)
    go_on(campaign, MeasuredStage(store, {"A": 0.69, "C": 0.70, "B": 0.75}), None)
    _, second, third = campaign.steps()
    assert "by picture" not in second.because
    assert "F1 of run zoo-2-C against zoo-1-A, by picture: +0.0 [+0.0, +0.0], not distinguishable" in third.because


def test_a_campaign_goes_from_a_to_c_and_names_the_best(store):
    """Each run is trained once, in the order of the rules, and the end names the best run."""
    stage = Stage(store, {"A": 0.69, "C": 0.73})
    campaign = find_campaign(store, "zoo", GOAL)
    result = go_on(campaign, stage, None)
    assert [(named["recipe"], named.get("weights")) for named in stage.trained] == [("A", None), ("C", "zoo-1-A")]
    assert (result.reason, result.best) == ("target reached", "zoo-2-C")
    again = go_on(find_campaign(store, "zoo", GOAL), stage, None)
    assert (again, len(stage.trained)) == (result, 2)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"goal": {"target": 1}}'])
def test_a_damaged_campaign_is_no_reason_that_another_cannot_start(store, caplog, content):
    """It keeps its name, and is passed over with a warning that names it."""
    store.put("campaigns/campaign/campaign.json", content)
    assert find_campaign(store, None, GOAL).name == "campaign2"
    assert "campaigns/campaign/campaign.json" in caplog.text


@pytest.mark.parametrize(
    ("code", "error", "exit_code"),
    [
        (75, CampaignError, 75),
        (-9, CampaignError, 75),
        (70, CampaignError, 70),
        (78, CampaignError, 78),
        (0, PauseError, 0),
    ],
)
def test_a_run_that_did_not_end_ends_the_command_and_not_the_campaign(store, code, error, exit_code):
    """A run that was cut off, failed or was paused ends the command with its code; the same command resumes it."""
    stage = Stage(store, {"A": 0.66, "B": 0.73}, [None, code])
    campaign = find_campaign(store, "zoo", GOAL)
    with pytest.raises(error) as raised:
        go_on(campaign, stage, None)
    assert raised.value.exit_code == exit_code
    assert campaign.result() is None
    assert "not finished" in render(campaign)
    result = go_on(find_campaign(store, "zoo", GOAL), stage, None)
    assert [named["run"] for named in stage.trained] == ["zoo-1-A", "zoo-2-B", "zoo-2-B"]
    assert result.reason == "target reached"


def test_of_two_decisions_the_first_stands(store):
    """Of two decisions about one step the first is kept, and it is what is trained."""
    campaign = find_campaign(store, "zoo", GOAL)
    first = decided()
    campaign.add(first)
    campaign.add(first.model_copy(update={"recipe": "B"}))
    assert [step.recipe for step in campaign.steps()] == ["A"]


def test_strays_among_campaigns_stop_nothing_and_keep_their_names(store):
    """A copied folder with an invalid name ends no search, and a foreign folder is not written to."""
    first = find_campaign(store, None, GOAL)
    store.put("campaigns/my copy/campaign.json", store.read(first.key("campaign.json")))
    store.put("campaigns/campaign2/notes.txt", b"mine")
    assert find_campaign(store, None, GOAL).name == first.name
    assert find_campaign(store, None, dataclasses.replace(GOAL, max_runs=3)).name == "campaign3"


def test_the_same_goal_is_the_same_campaign(store):
    """Without a name, the same goal resumes its campaign, and another goal begins the next one."""
    other = dataclasses.replace(GOAL, target_f1=0.8)
    names = [find_campaign(store, None, goal).name for goal in (GOAL, GOAL, other, GOAL)]
    assert names == ["campaign", "campaign", "campaign2", "campaign"]
    with pytest.raises(RunConflictError) as raised:
        find_campaign(store, "campaign", other)
    assert raised.value.problems == ("target_f1: the run has 0.72, asked for 0.8",)


def test_a_name_that_leaves_no_room_for_its_runs_is_refused(store):
    """The names of a campaign's runs are names."""
    with pytest.raises(UsageError, match="is not a name"):
        Campaign(store, "x" * 60)


def test_the_page_is_complete_and_escapes_markup(store):
    """The page has the goal, each run with its reason and figures, the best model with its place, and the command."""
    goal = dataclasses.replace(GOAL, arguments={"epochs": "3", "project": "<script>"})
    campaign = find_campaign(store, "zoo", goal)
    go_on(campaign, Stage(store, {"A": 0.69, "C": 0.70, "B": 0.60, "transfer": 0.5}), None)
    text = store.read("campaigns/zoo/campaign.html").decode()
    assert text == render(campaign)
    assert "Nothing helps: run zoo-2-C: F1 70.0%" in text
    assert "good enough for C" in text
    assert f"{store.uri}/runs/zoo-2-C/weights/best.pt" in text
    assert "--project=&lt;script&gt;" in text
    assert "<script>" not in text
    assert "http" not in text


def test_a_campaign_without_progress_says_that_the_start_is_better(store):
    """If no run is better than the start weights of the first, the page says so."""
    campaign = find_campaign(store, "zoo", GOAL)
    go_on(campaign, Stage(store, {"A": 0.2, "B": 0.1, "transfer": 0.1}), None)
    assert "No run is better than the start weights of the first run, F1 30.0%" in render(campaign)
    result = campaign.result()
    assert (result.best, result.weights) == (None, "weights/yolo11s.pt")
    assert f"{store.uri}/weights/yolo11s.pt" in render(campaign)
    assert "\n            the start weights of the first run; no run is better\n" in "\n".join(
        format_campaign(campaign, result)
    )


def started(entry, run, before=0.3):
    """Return the summary of a run that started from weights of another one with this F1."""
    point = {"kind": "own", "source": f"runs/{run}/weights/best.pt", "architecture": None, "run": run}
    entry.final.comparison.before["f1"] = before
    return dataclasses.replace(entry, record=starting_from(entry.record, point))


@pytest.mark.parametrize(
    ("f1s", "best"),
    [((0.62, 0.66), "zoo-C"), ((0.66, 0.62), "zoo-A"), ((0.66, 0.66), "zoo-A"), ((0.58, 0.57), "zoo-A"),
     ((0.579, 0.57), "lion")],
)  # fmt: skip
def test_the_best_is_never_worse_than_what_it_started_from(f1s, best):
    """The best of all runs is named, of equal ones the first; where none is better than the start, that is."""
    finished = [started(ended(recipe, f1), "lion", 0.58) for recipe, f1 in zip("AC", f1s, strict=True)]
    found = best_of(finished)
    assert (found.run, found.weights, found.is_start) == (best, best, best == "lion")


def test_the_next_run_starts_from_the_best_and_not_from_the_newest():
    """After a C that is worse than its A, what uses own weights starts from A; after an A that is worse than its start,
    it starts from there.
    """
    rising = tuple(0.3 + 0.36 * epoch / 19 for epoch in range(20))
    better = started(recorded("A", run="zoo-A", course=rising), "lion")
    worse = started(ended("continue", 0.61), "zoo-A")
    assert decided(better).weights == "zoo-A"
    assert (decided(better, worse).recipe, decided(better, worse).weights) == ("B", None)
    fallen = started(recorded("A", run="zoo-A", course=rising), "lion", before=0.7)
    step = decided(fallen)
    assert (step.recipe, step.weights) == ("continue", "lion")


def test_no_recipe_is_trained_twice_from_the_same_weights():
    """A recipe that was trained from the best weights and did not better them is not advised again; the reason has the
    next step instead.
    """
    rising = tuple(0.3 + 0.36 * epoch / 19 for epoch in range(20))
    finished = [started(recorded("A", run="zoo-A", course=rising), "lion")]
    recipes = []
    while isinstance(step := decided(*finished, goal=dataclasses.replace(GOAL, max_runs=9)), CampaignStep):
        assert f"({step.recipe}" in step.because
        recipes.append((step.recipe, step.weights))
        finished.append(started(ended(step.recipe, 0.6, run=step.run), step.weights or "nothing"))
    assert recipes == [("continue", "zoo-A"), ("B", None), ("transfer", None)]
    assert step.reason == "nothing helps"


def test_a_start_that_reaches_the_target_ends_the_campaign():
    """If no run is better than the start and the start is good enough, nothing more is trained."""
    end = decided(started(ended("A", 0.70), "lion", 0.73))
    assert (end.reason, end.because) == ("target reached", "lion: F1 73.0%, which no run exceeds")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--max-usd", "5"], "--max-usd: needs to know what an hour"),
        (["--max-runs", "0"], "--max-runs: must be a whole number from 1"),
        (["--target-f1", "2"], "--target-f1: must be a fraction of 1"),
        (["--epohcs", "2"], "--epohcs: there is no such flag"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(store, capsys, words, part):
    """Wrong arguments end with exit 2, and the bucket is unchanged."""
    store.put("datasets/wildlife/data.yaml", b"x")
    assert main(["campaign", *words, "--bucket", store.uri]) == 2
    assert part in capsys.readouterr().err
    assert store.list("campaigns/") == []


OLD = {
    "campaign.json": {
        "schema": 1, "created_at": "2026-11-23T10:00:00.000+00:00", "campaign": "zoo",
        "goal": {"target_f1": 0.72, "max_runs": 4, "max_usd": None, "profile": "full", "dataset": "wildlife",
                 "weights": None, "arguments": {"epochs": "3"}},
    },
    "steps/0001.json": {
        "schema": 1, "number": 1, "recipe": "A", "run": "zoo-1-A", "weights": None, "rule": "first",
        "because": "recipe A comes first: quick, and of low risk", "decided_at": "2026-11-23T10:00:01.000+00:00",
    },
    "final.json": {
        "schema": 1, "finished_at": "2026-11-23T12:00:00.000+00:00", "best": "zoo-1-A", "reason": "target reached",
        "because": "run zoo-1-A: F1 73.0%",
    },
}  # fmt: skip
"""A finished campaign as versions before bounds and best weights wrote it."""


def test_an_old_campaign_is_read_and_shown(store):
    """Records without bound and weights keep their meaning: same goal, same steps, finished, best run by its name."""
    put_recorded(store, ended("A", 0.73, run="zoo-1-A"))
    for name, content in OLD.items():
        store.put(f"campaigns/zoo/{name}", json.dumps(content).encode())
    campaign = find_campaign(store, None, GOAL)
    stage = Stage(store, {})
    result = go_on(campaign, stage, None)
    assert (campaign.name, result.best, result.weights, stage.trained) == ("zoo", "zoo-1-A", None, [])
    assert [step.run for step in campaign.steps()] == ["zoo-1-A"]
    assert f"{store.uri}/runs/zoo-1-A/weights/best.pt" in render(campaign)


@pytest.mark.parametrize("name", OLD)
def test_a_newer_campaign_is_refused(store, name):
    """A record of a newer schema is refused with what to do."""
    for other, content in OLD.items():
        store.put(f"campaigns/zoo/{other}", json.dumps(content | {"schema": 2 if other == name else 1}).encode())
    campaign = Campaign(store, "zoo")
    with pytest.raises(CorruptObjectError, match=r"newer version of the job .*; update the job"):
        (campaign.record(), campaign.steps(), campaign.result())
