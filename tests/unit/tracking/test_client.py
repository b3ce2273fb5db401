"""What the client makes of the report's pictures for W&B's server."""

import io
from types import SimpleNamespace

from PIL import Image

from job.report.examples import KINDS, Box, Picture, View, data_address
from job.tracking.client import WandbRun


def test_boxes_of_every_kind_are_sent_under_its_name():
    """An object called by another class is in the table of predictions, as each kind of box that the report draws."""
    written, sent = io.BytesIO(), []
    Image.new("RGB", (32, 24)).save(written, "JPEG")
    boxes = tuple(Box(1, 2, 8, 6, kind, f"zebra, {kind}") for kind in KINDS)
    picture = Picture("val/1.jpg", data_address(written.getvalue()), 32, 24, None, None, View(1, 1, 1, boxes))
    run = WandbRun.__new__(WandbRun)
    run._run, run.last_epoch = SimpleNamespace(log=sent.append), 3
    run.log_predictions([picture])
    [[name, before, after]] = sent[0]["predictions"].data
    assert (name, before, sent[0]["epoch"]) == ("val/1.jpg", None, 3)
    drawn = after._boxes["boxes"]
    named = [drawn._class_labels[box["class_id"]] for box in drawn._val]
    assert dict(zip(KINDS, named, strict=True)) == KINDS
