"""``job audit``: labels that a run's model contradicts, ranked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from job.audit.findings import Finding, Kind
from job.audit.output import Audit
from job.cli.command import command
from job.cli.options import DeviceOption, JsonOption, RunOptions
from job.cli.predict import Confidence
from job.cli.runs import require_finished
from job.errors import RunConflictError
from job.log import one_line
from job.prediction.threshold import choose_threshold
from job.runs.progress import EvaluationRecord
from job.storage.open_store import open_output
from job.text import counted, table
from job.training.files import EVALUATION

NUM_SHOWN = 10


class AuditOptions(RunOptions, JsonOption, DeviceOption):
    """Flags of ``job audit``."""

    split: Literal["train", "val", "test"] = Field("val", description="The split: train, val or test.")
    out: str | None = Field(
        None, description="A folder, or gs://BUCKET/PREFIX; beside the run's report in the bucket if left out."
    )
    dataset: str | None = Field(
        None, description="Another dataset with the same classes; that of the run if left out, its newest version."
    )
    conf: Confidence | None = Field(
        None, description="Detections from this confidence on are evidence; the run's own threshold if left out."
    )


@command(AuditOptions, "job audit zebra --split train --bucket gs://my-bucket")
def audit(options: AuditOptions) -> None:
    """List labels that the best weights of a finished run contradict: missing, of a wrong class, askew, or of nothing.

    Writes audit-SPLIT.html, a page with crops, and audit-SPLIT.csv, a table for labelling tools. Changes no label.

    Raises:
        RunConflictError: If there is no such run, it is not finished, or --out has files of these names.
        DataError: If the dataset is broken, or has other classes.
    """
    store = options.store()
    run, record, _ = require_finished(store, options.run)
    threshold = choose_threshold(run.name, run.read(EvaluationRecord, EVALUATION), options.conf)
    options.require_device()
    place, prefix = (open_output(options.out), "") if options.out else (store, run.key(""))
    page, table_ = (f"audit-{options.split}.{suffix}" for suffix in ("html", "csv"))
    if options.out and (taken := [each.key for each in place.list("audit-") if each.key in {page, table_}]):
        raise RunConflictError(f"{place.uri}: has {taken[0]} already; move it away, or choose another --out")
    from job.audit.audit import audit_labels

    result = audit_labels(
        *(run, record, threshold, options.split),
        dataset=options.dataset or record.dataset.name,
        device=options.device,
        workdir=options.workdir,
    )
    for name, text in ((page, result.page), (table_, result.table)):
        place.put(f"{prefix}{name}", text.encode(), overwrite=not options.out)
    files = [f"{place.uri}/{prefix}{name}" for name in (page, table_)]
    counts = Counter(found.kind for found in result.findings)
    content = {
        "files": files,
        "threshold": threshold.confidence,
        "num_pictures": result.audit.num_images,
        "num_labels": result.audit.num_labels,
        "findings": {kind: counts[kind] for kind in Kind},
    }
    options.print(content, [*_format(result.audit, result.findings, counts), "", *files])


def _format(audited: Audit, findings: Sequence[Finding], counts: Mapping[Kind, int]) -> list[str]:
    rows = [("rank", "kind", "score", "class", "picture")]
    rows += [
        (str(rank), found.kind, f"{found.score:.2f}", one_line(audited.names[found.category]), one_line(found.image))
        for rank, found in enumerate(findings[:NUM_SHOWN], 1)
    ]
    return [
        f"{counted(audited.num_labels, 'label')} in {counted(audited.num_images, 'picture')} of {audited.split}",
        ", ".join(f"{counts[kind]} {kind}" for kind in Kind),
        "",
        *table(rows, right={0, 2}),
    ]
