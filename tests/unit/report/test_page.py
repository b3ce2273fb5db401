"""The report of a run, from records alone."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from job.cli.app import main
from job.datasets.lockfile import read_version
from job.datasets.push import plan_push
from job.report.charts import Series, curve_chart
from job.report.data import read_facts
from job.report.examples import MAX_PX, make_pictures
from job.report.page import render, state_of, verdict_of
from job.report.publish import write_report
from job.report.reproduce import command_of, use_of
from job.runs.records import PinnedDataset
from job.storage.open_store import open_store
from job.training.evaluation_record import Evaluation
from tests.support.cli_process import job
from tests.support.run_records import at, evaluation, record_run
from tests.support.split_evaluation import record_evaluation
from tests.support.tiny_dataset import make_tiny_dataset

COURSE = (0.62, 0.65, 0.67, 0.69, 0.70, 0.71, 0.72, 0.72, 0.71, 0.72)

SECTIONS = (
    *("verdict", "classes", "next", "images", "confidence", "sizes", "use", "curves", "epochs", "losses", "start"),
    *("attempts", "cost", "exactness", "tracking", "repeat"),
)


STATISTICS = {
    "imgsz": 640, "tiles": 0, "side_px": 2000, "num_objects": 20, "num_small": 3, "num_small_in_files": 0,
    "median_px": 20.0, "median_in_files_px": 60.0, "max_objects": 9,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A finished run that was cut off once."""
    return record_run(tmp_path / "bucket", COURSE)


def facts_of(run, now=400):
    """Read the facts of a run some time after its start."""
    return read_facts(run, run.record(), at(now))


def page_of(run):
    """Write the report of a run and read it."""
    return run.store.read(write_report(run, run.record())).decode()


def words(html):
    """Return the text of a page, without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)).split())


def test_the_command_writes_the_report_beside_the_run(run, tmp_path, capsys):
    """`job report` prints where the report lies, and it lies there, with every section in its order."""
    assert main(["report", "zebra", "--bucket", str(tmp_path / "bucket")]) == 0
    place = tmp_path / "bucket" / "runs" / "zebra" / "report.html"
    assert capsys.readouterr().out.strip() == str(place)
    assert re.findall(r'<(?:header|section) id="([\w-]+)"', place.read_text()) == list(SECTIONS)


def test_commands_are_whole_and_marked_as_code(tmp_path):
    """One within a sentence is code, and one of its own breaks only between its words."""
    page = page_of(record_run(tmp_path / "bucket", [0.6, *[0.66] * 11]))
    assert "<code>job estimate</code>" in page
    assert "`job" not in page
    (command,) = re.findall(r"<pre>(.*<span>B</span>.*)</pre>", page)
    assert re.sub(r"</?span>", "", command) == f"job train --recipe B --dataset wild --bucket {tmp_path}/bucket"
    assert re.sub(r"<span>[^ <]+</span>", "", command).strip() == ""


def test_an_epoch_with_a_better_f1_is_named(run):
    """The report says so if best.pt is of an epoch with a lower F1 than another one, and else nothing."""
    assert facts_of(run).better_f1_epoch is None
    assert "--best f1" not in words(page_of(run))
    run.write("final.json", run.final().model_copy(update={"best_epoch": 5}), overwrite=True)
    assert "Epoch 10 has a better F1, 72.0 %, than epoch 5, 70.0 %" in words(page_of(run))


def test_until_it_is_finished_the_best_epoch_is_that_of_its_measure(tmp_path):
    """With --best f1 the best epoch so far is the one with the highest F1."""
    run = record_run(tmp_path / "bucket", COURSE, finished=False)
    record = run.record()
    train = record.request["train"] | {"best": "f1"}
    facts = read_facts(run, record.model_copy(update={"request": record.request | {"train": train}}), at(400))
    rows = [row | {"metrics/mAP50-95(B)": 0.9 if row["epoch"] == 2 else 0.1} for row in facts.rows]
    assert replace(facts, rows=rows).best_epoch == 10
    assert replace(facts, rows=rows, record=record).best_epoch == 2


def test_an_evaluation_is_part_of_the_verdict(run, capsys):
    """Report and `runs show` have the figures of `job evaluate` with their intervals."""
    record_evaluation(run)
    figures = "F1 50.0 % [45.0, 55.0], precision 50.0 % [45.0, 55.0], recall 50.0 % [45.0, 55.0]; 0 pictures of test"
    assert f"Evaluated: {figures}; in brackets" in words(page_of(run))
    assert main(["runs", "show", "zebra", "--bucket", run.store.uri]) == 0
    assert f"evaluated {figures}" in " ".join(capsys.readouterr().out.split())


def test_the_command_opens_the_report(run, tmp_path):
    """With --open the browser that the user named gets the file's address."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    done = job("report", "zebra", "--open", "--bucket", tmp_path / "bucket", BROWSER=browser)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "opened").read_text().strip() == (tmp_path / "bucket/runs/zebra/report.html").as_uri()


def test_without_a_browser_the_command_names_the_page(run, monkeypatch, capsys):
    """Where no browser opens, the path is printed once, and that is no error."""
    monkeypatch.setattr("webbrowser.open", lambda _address: False)
    assert main(["report", "zebra", "--open", "--bucket", run.store.uri]) == 0
    page = f"{run.store.uri}/runs/zebra/report.html"
    printed = capsys.readouterr()
    assert printed.out.strip() == page
    assert "no browser opens here" in printed.err
    assert page not in printed.err


def test_a_path_that_is_no_text_is_spelt_out_on_the_page(tmp_path):
    """A bucket and a picture whose names are not UTF-8 do not keep a report from being written."""
    run = record_run(tmp_path / os.fsdecode(b"b\xffcket"), COURSE)
    (Path(run.store.uri) / "runs" / "zebra" / os.fsdecode(b"plot\xff.png")).write_bytes(b"")
    page = page_of(run)
    assert f"{tmp_path}/b\\udcffcket" in page
    assert 'href="plot%FF.png"' in page
    assert "plot\\udcff.png" in page


def test_a_report_of_a_missing_run_is_refused(run, tmp_path, capsys):
    """A name that is none ends with 65 and the nearest one."""
    assert main(["report", "zebr", "--bucket", str(tmp_path / "bucket")]) == 65
    assert "did you mean 'zebra'?" in capsys.readouterr().err


def test_without_matplotlib_the_command_names_it(run, tmp_path, monkeypatch, capsys):
    """Without matplotlib the command ends with 78, and names it."""
    for name in [name for name in sys.modules if name.startswith("job.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", "zebra", "--bucket", str(tmp_path / "bucket")]) == 78
    assert "the package matplotlib is missing" in capsys.readouterr().err


def test_the_verdict_says_what_came_of_it(run):
    """A finished run is judged by its final figures against what the recipe expects."""
    facts = facts_of(run)
    said = "F1 rose by 14.0 points, from 58.0 % to 72.0 %. The recipe expects 65 to 70 %: that is reached."
    assert verdict_of(facts) == said
    assert state_of(facts) == "complete after 10 epochs"


def test_a_run_under_way_is_judged_so_far(tmp_path):
    """Before the end the best epoch so far is judged, and the run is running until it falls silent."""
    run = record_run(tmp_path / "bucket", (0.5, 0.55, 0.52), finished=False, asked=80)
    said = "F1 fell by 3.0 points so far, in epoch 2, from 58.0 % to 55.0 %. The recipe expects 65 to 70 %: that is"
    assert verdict_of(facts_of(run)) == f"{said} not reached yet."
    assert state_of(facts_of(run, now=390)) == "running at 2026-11-23 08:06:30 UTC, after epoch 3 of 80"
    assert state_of(facts_of(run, now=1000)) == "vanished after epoch 3 of 80"
    assert re.findall(r'<(?:header|section) id="([\w-]+)"', page_of(run)) == list(SECTIONS)


@pytest.mark.parametrize(
    ("before", "said"),
    [(0.72, "F1 is 72.0 %, as before."), (0.75, "F1 fell by 3.0 points, from 75.0 % to 72.0 %.")],
)
def test_an_epoch_is_praised_only_if_the_verdict_is(tmp_path, before, said):
    """Without a change none is stated, and the best epoch is not green where the start weights are better."""
    run = record_run(tmp_path / "bucket", COURSE, before=before)
    assert verdict_of(facts_of(run)).startswith(said)
    assert ('class="note best worse"' in page_of(run)) is (before > 0.72)


def test_the_epoch_table_claims_no_more_than_the_verdict(run):
    """Where best.pt is below the expectation, no epoch is noted to have reached it."""
    final = run.final()
    low = final.comparison.model_copy(update={"after": final.comparison.after | {"f1": 0.64}})
    run.write("final.json", final.model_copy(update={"comparison": low}), overwrite=True)
    assert "that is not reached" in verdict_of(facts_of(run))
    assert "expectation reached</span>" not in page_of(run)


def test_a_demo_is_not_judged_by_full_scale(run):
    """The bands of a recipe are meant for full scale: a demo has neither reached them nor missed them."""
    record = run.record()
    facts = replace(facts_of(run), record=record.model_copy(update={"request": record.request | {"profile": "demo"}}))
    assert verdict_of(facts).endswith("The recipe expects 65 to 70 % at full scale, which a demo cannot show.")
    assert "reached</span>" not in render(facts)


def test_what_now_is_the_advice_of_the_rules(run):
    """After a run it has rule, command, gain and cost, as `job advise`; none if the target is reached."""
    text = words(page_of(run))
    assert "the target of 72% is reached, nothing more is needed. Rule “target reached” of job advise" in text
    facts = facts_of(run)
    low = {name: round(value - 0.03, 5) for name, value in facts.final.comparison.after.items()}
    comparison = facts.final.comparison.model_copy(update={"after": low})
    run.write("final.json", facts.final.model_copy(update={"comparison": comparison}), overwrite=True)
    text = words(page_of(run))
    assert f"Advised: recipe C job train --recipe C --weights zebra --dataset wild --bucket {run.store.uri}" in text
    assert "expected gain 3.0 points of F1 or more" in text
    assert "Too few data to rely on this: 8 validation images" in text


def test_what_now_of_an_unfinished_run_is_the_command_that_resumes_it(tmp_path):
    """A run that was cut off names that command, a running one needs nothing."""
    run = record_run(tmp_path / "bucket", COURSE, finished=False, asked=80)
    assert f"job resume zebra --bucket {run.store.uri}" in words(render(facts_of(run, now=1000)))
    running = words(render(facts_of(run, now=390)))
    assert "Nothing: it trains" in running
    assert "job resume" not in running


def test_the_model_has_path_size_digest_and_threshold(run):
    """The weights are named with all that is needed to use them, and Ultralytics' pictures beside them are linked."""
    run.store.put("runs/zebra/weights/best.pt", b"x" * 1_500_000)
    run.store.put("runs/zebra/results #1.png", b"")
    page = page_of(run)
    sha256 = run.final().weights["best.pt"].sha256
    assert f"weights {run.store.uri}/runs/zebra/weights/best.pt size 1.5 MB SHA-256 {sha256}" in words(page)
    assert "threshold 0.31, where F1 is best" in words(page)
    assert "The mean F1 of the classes is best at a confidence of 0.31" in words(page)
    assert '<a href="results%20%231.png">results #1.png</a>' in page


def test_the_start_is_told_with_the_run_s_own_numbers(run, tmp_path):
    """What was kept, and the first epoch beside that of a run that began without own weights on the same images."""
    text = words(page_of(run))
    assert "Before the first step the start weights have F1 58.0 % (row 0 of the table). Weights that were" in text
    assert "The box loss of the first epoch is 2.00. mAP50 after the first epoch is 62.0 %." in text
    other = record_run(tmp_path / "bucket", COURSE, name="other")
    record = other.record()
    scratch = replace(record.start.point, kind="scratch", source=None, run=None, architecture="yolo11s.yaml")
    start = record.start.model_copy(update={"point": scratch})
    other.write("run.json", record.model_copy(update={"start": start}), overwrite=True)
    text = words(page_of(run))
    assert "first epoch is 2.00, from scratch 2.00 (run other)." in text
    assert "mAP50 after the first epoch is 62.0 %, of run other 62.0 %." in text
    assert "Nothing: this run began from random weights" in words(page_of(other))
    published = replace(scratch, kind="pretrained", source="weights/yolo11s.pt", architecture=None)
    start = record.start.model_copy(update={"point": published})
    other.write("run.json", record.model_copy(update={"start": start}), overwrite=True)
    assert "first epoch is 2.00, from yolo11s.pt 2.00 (run other)." in words(page_of(run))
    assert "so that 0 % is no fault here" in words(page_of(other))
    assert "(run zebra)" not in words(page_of(other))


def test_a_start_that_was_not_measured_is_told(tmp_path):
    """Where the layers for the classes are new there is no row 0, nothing is compared with it, and it says why."""
    run = record_run(tmp_path / "bucket", COURSE, before=None)
    record = run.record()
    start = record.start.model_copy(update={"transfer": {"has_new_outputs": True}})
    run.write("run.json", record.model_copy(update={"start": start}), overwrite=True)
    facts = facts_of(run)
    assert verdict_of(facts) == "F1 is 72.0 %. The recipe expects 65 to 70 %: that is reached."
    text = words(page_of(run))
    assert "The layers for the classes are new and find nothing at first, so that the start weights were not" in text
    assert "row 0" not in text
    assert "epoch 0 is" not in text
    assert "before after" not in text
    assert "start weights 1 62.0 %" not in text
    assert verdict_of(replace(facts, final=None)) == (
        "F1 is 72.0 % so far, in epoch 10. The recipe expects 65 to 70 %: that is reached."
    )


def test_row_0_stands_beside_the_end_of_the_run_that_the_weights_are_of(run, tmp_path):
    """The start weights are as good as when their run ended, on the same images, and the report has both figures."""
    record_run(tmp_path / "bucket", (0.5, 0.58), name="base")
    assert "have F1 58.0 % (row 0 of the table); their run base ended with 58.0 %." in words(page_of(run))


def test_the_course_and_patience_are_told_with_the_run_s_own_numbers(run):
    """The epochs of gains, plateau and best stand together, and patience is explained by the epochs asked for."""
    text = words(page_of(run))
    assert "Here: early gain at epochs 1, 2; steady gain at epochs 3, 4, 5, 6, 7; plateau at epoch 8; best at" in text
    assert "Patience (100) cannot end a training of 10 epochs early" in text
    record = run.record()
    request = record.request | {"train": record.request["train"] | {"patience": 5}}
    run.write("run.json", record.model_copy(update={"request": request}), overwrite=True)
    assert "Training ends after 5 epochs in a row without a better one" in words(page_of(run))


def test_training_objects_are_shown_by_class_and_size(run):
    """The rarest class comes first, with its objects in each range that has any."""
    assert "Objects to learn from" not in words(page_of(run))
    record, sizes = run.record(), {"zebra": [0, 0, 4, 9, 0, 0], "ostrich": [0, 0, 0, 2, 0, 0]}
    statistics = STATISTICS | {"train": sizes}
    dataset = record.dataset.model_validate(record.dataset.model_dump() | {"statistics": statistics})
    run.write("run.json", record.model_copy(update={"dataset": dataset}), overwrite=True)
    assert "class objects 16-32 px 32-64 px ostrich 2 · 2 zebra 13 4 9" in words(page_of(run))


def test_the_epochs_have_their_metrics_and_notes(run):
    """Row 0 comes first, then each epoch with its metrics and notes."""
    text = words(page_of(run))
    assert "0 58.0 % 58.0 % 65.2 % 52.2 % start weights 1 62.0 % 62.0 %" in text
    assert "2 65.0 % 65.0 % 73.1 % 58.5 % early gain expectation reached 3" in text
    assert "7 72.0 % 72.0 % 81.0 % 64.8 % steady gain best 8" in text
    assert "8 72.0 % 72.0 % 81.0 % 64.8 % plateau 9" in text


def test_the_worst_class_is_first_and_markup_is_text(run):
    """Classes are sorted by F1, and a class whose name is markup is shown and not obeyed."""
    html = page_of(run)
    section = html[html.index("<tbody>", html.index('id="classes"')) : html.index('id="next"')]
    assert section.index("a &lt;b&gt;bold&lt;/b&gt; class") < section.index(">zebra<")
    assert "<b>bold</b>" not in html


def test_phases_and_attempts_are_those_of_the_run_cost(tmp_path):
    """Lost and useful seconds and dollars are those of the run's cost."""
    price = {"usd_per_h": 3.6, "on_demand_usd_per_h": 7.2}
    run = record_run(tmp_path / "bucket", COURSE, price=price)
    cost = facts_of(run).cost
    text = words(page_of(run))
    assert cost.seconds["lost"] == 20.0
    assert f"lost 20.0 s {20 / cost.total_s:.1%}".replace("%", " %") + " $0.0200" in text
    assert f"all 4 min 50 s ${cost.usd:.4f}" in text
    assert "1 2026-11-23 08:00:00 the start 2 min 10 s vanished 2 20.0 s 1 min 00 s" in text


def test_a_report_asks_for_nothing_and_stays_small(tmp_path):
    """A run of 100 epochs with large images makes less than 5 MB, and nothing in it has an address outside."""
    run = record_run(tmp_path / "bucket", tuple(0.6 + epoch / 1000 for epoch in range(100)), px=1600)
    html = page_of(run)
    assert 100_000 < len(html) < 5_000_000
    addresses = set(re.findall(r"""(?:href|src)\s*=\s*["']([^"'#][^"']*)""", html)) | set(
        re.findall(r"url\((.*?)\)", html)
    )
    assert all(address.startswith(("data:", "#")) for address in addresses), addresses
    assert set(re.findall(r"https?://[\w./]+", html)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_a_report_that_was_overtaken_is_made_again(run, monkeypatch):
    """If another report is written while one is made, the records are read again, so that the newer story stays."""
    from job.report import publish  # noqa: PLC0415 -- its function is replaced

    pages = iter(("stale", "fresh"))

    def render(_facts):
        page = next(pages)
        if page == "stale":
            run.store.put(run.key("report.html"), b"of another machine", overwrite=True)
        return page

    monkeypatch.setattr(publish, "render", render)
    write_report(run, run.record())
    assert run.store.read(run.key("report.html")) == b"fresh"


def test_cuts_lie_where_the_attempts_were(run):
    """An attempt that vanished two batches into an epoch of ten is marked there, and the one that finished is not."""
    assert facts_of(run).cuts == [5.2]


def test_large_images_are_cut_to_where_the_mistakes_are(tmp_path):
    """Of a large image the part with the most mistakes is shown at its own resolution, with the boxes in it."""
    run = record_run(tmp_path / "bucket", COURSE, px=2400)
    seen = Evaluation(**evaluation(0.7))
    pictures = make_pictures(run.store, run.record().dataset, None, seen)
    assert (pictures[0].width, pictures[0].height, pictures[0].cut_from) == (MAX_PX, 600, (2400, 2400))
    missed = [box for box in pictures[0].after.boxes if box.kind == "missed"]
    assert [(box.width, box.height) for box in missed] == [(240, 240)]
    assert pictures[0].before is None


def test_images_without_mistakes_or_without_a_file_are_left_out(tmp_path):
    """At most six are shown, none that is right, and none that the dataset has no more."""
    run = record_run(tmp_path / "bucket", COURSE)
    seen = evaluation(0.7, num_images=3)
    run.store.delete("datasets/wild/images/val/000.jpg")
    for entry in seen["images"][1:]:
        entry["image"] = entry["image"].replace("002", "007")
    dataset, few, many = run.record().dataset, Evaluation(**seen), Evaluation(**evaluation(0.7))
    assert [picture.image for picture in make_pictures(run.store, dataset, few, few)] == ["images/val/001.jpg"]
    assert len(make_pictures(run.store, dataset, many, many)) == 5


def test_charts_take_the_colours_of_the_page():
    """A chart names no colour and no font of its own, so that it is light or dark with the page."""
    svg = curve_chart([Series("F1", "blue", [0.5, 0.6])], first_epoch=0, num_epochs=2, cuts=[1.5], best_epoch=1)
    assert "var(--blue)" in svg
    assert "var(--red)" in svg
    assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
    assert "font-family" not in svg


def test_the_command_to_repeat_a_run_asks_for_what_it_asked_for(run):
    """Recipe, data, lineage and the arguments that differ from the recipe are in it, and no other."""
    words_of = command_of(run.record())
    assert words_of == "job train --recipe A --dataset wild --weights base --epochs 10 --run zebra-again"


def test_the_command_to_use_a_run_is_in_its_report(run, tmp_path):
    """It names run and bucket, and is promised for the end while the run is not finished."""
    command = f"job predict zebra path/to/pictures --out found --bucket {tmp_path / 'bucket'}"
    assert use_of(run) == command
    assert "This counts objects in a folder of pictures, in files, or in a prefix of a bucket, at the run's own " in (
        words(page_of(run)).replace("&#39;", "'")
    )
    assert command in words(page_of(run))
    unfinished = record_run(tmp_path / "other" / "bucket", COURSE, finished=False)
    assert "Once the run is finished, this counts objects" in words(page_of(unfinished))


def test_a_report_changes_nothing_but_itself(run, tmp_path):
    """Writing the report of a run adds that one object to the bucket, and leaves every other as it is."""
    before = {stored.key: stored.version for stored in run.store.list()}
    write_report(run, run.record())
    after = {stored.key: stored.version for stored in open_store(str(tmp_path / "bucket")).list()}
    assert after.keys() - before.keys() == {"runs/zebra/report.html"}
    assert {key: version for key, version in after.items() if key in before} == before


def test_pictures_are_those_of_the_run_s_version(tmp_path):
    """After a push of other bytes under the path of a validation image, a report of either run shows its own."""
    run = record_run(tmp_path / "bucket", COURSE)
    data = make_tiny_dataset(tmp_path / "wild", num_val=8)
    (tmp_path / "bucket/datasets").rename(tmp_path / "away")
    seen, shown = Evaluation(**evaluation(0.7)), []
    for seed in (0, 1):
        make_tiny_dataset(data, num_val=8, seed=seed)
        plan_push(run.store, data, "wild").send()
        pinned = PinnedDataset(name="wild", digest=read_version(run.store, "wild").digest, set_aside=[])
        shown.append((pinned, make_pictures(run.store, pinned, None, seen)[0].data))
    assert shown[0][1] != shown[1][1]
    assert [make_pictures(run.store, pinned, None, seen)[0].data for pinned, _ in shown] == [data for _, data in shown]


def test_a_trade_of_exactness_is_named(run):
    """The report of a compiled run says that it is not exact from the first attempt on, and why."""
    record = run.record()
    assert "not bit-exact" not in words(page_of(run))
    train = record.request["train"] | {"compile": True}
    compiled = record.model_copy(update={"request": record.request | {"train": train}})
    page = words(run.store.read(write_report(run, compiled)).decode())
    assert "not bit-exact from attempt 1" in page
    assert "cannot be compared bit by bit: compile: is on" in page
