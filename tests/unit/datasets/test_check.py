import os
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
import yaml
from PIL import Image

from job.datasets import image, scan
from job.datasets.check import broken_files, check_dataset, set_aside, write_training_yaml
from job.datasets.dataset_report import SplitCounts
from job.datasets.scan import SCAN_CACHE
from job.errors import DataError
from job.storage.cache_file import CacheFile
from tests.support.tiny_dataset import make_tiny_dataset

IMAGE, LABEL = "images/train/001.jpg", "labels/train/001.txt"

BOX = "0 0.5 0.5 0.2 0.2\n"


@pytest.fixture
def data(tmp_path):
    """A sound dataset of two classes, with 8 images in train and 4 in val."""
    return make_tiny_dataset(tmp_path / "data")


def rows(text):
    """Replace the rows of a label."""
    return lambda data: (data / LABEL).write_text(text)


def data_yaml(**changes):
    """Change keys of data.yaml; None takes a key out."""

    def change(data):
        content = yaml.safe_load((data / "data.yaml").read_text()) | changes
        content = {key: value for key, value in content.items() if value is not None}
        (data / "data.yaml").write_text(yaml.safe_dump(content))

    return change


def raw_yaml(content):
    """Replace data.yaml."""
    return lambda data: (data / "data.yaml").write_bytes(content)


def image_bytes(change):
    """Change the bytes of an image."""
    return lambda data: (data / IMAGE).write_bytes(change((data / IMAGE).read_bytes()))


def small_image(data):
    """Make an image one pixel too low."""
    Image.new("RGB", (64, 9)).save(data / IMAGE)


def gif_in_disguise(data):
    """Make an image of a format that Ultralytics does not read."""
    Image.new("RGB", (64, 64)).save(data / IMAGE, "GIF")


def png_without_end(data):
    """Add a PNG that lacks only its last chunk, after the pixels."""
    Image.new("RGB", (64, 64)).save(data / "images/train/b.png")
    content = (data / "images/train/b.png").read_bytes()
    (data / "images/train/b.png").write_bytes(content[:-12])


def pipe_as_image(data):
    """Put a pipe, without a writer, where an image was."""
    (data / IMAGE).unlink()
    os.mkfifo(data / IMAGE)


def pipe_as_list(data):
    """Let train be a list that is a pipe without a writer."""
    os.mkfifo(data / "train.txt")
    data_yaml(train="train.txt")(data)


def pipe_as_yaml(data):
    """Put a pipe, without a writer, where data.yaml was."""
    (data / "data.yaml").unlink()
    os.mkfifo(data / "data.yaml")


def no_image(data):
    """Remove an image, and not its label."""
    (data / IMAGE).unlink()


def labels_in_the_wrong_folder(data):
    """Move a label where Ultralytics does not look for it."""
    (data / LABEL).rename(data / "labels/001.txt")


def same_stem(data):
    """Add an image whose label is that of another one."""
    Image.new("RGB", (64, 64)).save(data / "images/train/001.png")


def same_picture(data):
    """Replace an image of train by one of val."""
    (data / IMAGE).write_bytes((data / "images/val/002.jpg").read_bytes())


def empty_split(data):
    """Remove all of val but its folders."""
    for path in (data / "images/val").iterdir():
        path.unlink()
        (data / "labels/val" / path.name).with_suffix(".txt").unlink()


def no_labels(data):
    """Remove the labels of train."""
    for path in (data / "labels/train").iterdir():
        path.unlink()


def image_linked_outside(data):
    """Replace an image by a link that leads out of the dataset."""
    (data / IMAGE).rename(data.parent / "outside.jpg")
    (data / IMAGE).symlink_to(data.parent / "outside.jpg")


def label_linked_outside(data):
    """Replace a label by a link that leads out of the dataset."""
    (data / LABEL).rename(data.parent / "outside.txt")
    (data / LABEL).symlink_to(data.parent / "outside.txt")


def label_linked_nowhere(data):
    """Replace a label by a link to a file of the dataset that is not there."""
    (data / LABEL).unlink()
    (data / LABEL).symlink_to(data / "nothing.txt")


def folder_linked(data):
    """Replace a folder by a link that leads out of the dataset."""
    (data / "images/train").rename(data.parent / "train")
    (data / "images/train").symlink_to(data.parent / "train")


def yaml_linked_outside(data):
    """Replace data.yaml by a link that leads out of the dataset."""
    (data / "data.yaml").rename(data.parent / "data.yaml")
    (data / "data.yaml").symlink_to(data.parent / "data.yaml")


def train_outside(data):
    """Move train out of the dataset, and let data.yaml follow it."""
    (data / "images/train").rename(data.parent / "train")
    data_yaml(train="../../data/../train")(data)


def listed(*entries):
    """Let train be a list of one sound image and of these entries."""

    def change(data):
        (data / "train.txt").write_text("".join(f"{entry}\n" for entry in ("./images/train/000.jpg", *entries)))
        data_yaml(train="train.txt")(data)

    return change


def in_a_folder_below(data):
    """Move all but data.yaml one folder down, and let `path` name it."""
    (data / "below").mkdir()
    for kind in ("images", "labels"):
        (data / kind).rename(data / "below" / kind)
    data_yaml(path="below")(data)


def linked_inside(data):
    """Replace a folder by a link that stays in the dataset."""
    (data / "images/train").rename(data / "raw")
    (data / "images/train").symlink_to("../raw")


def png_with_much_text(data):
    """Replace an image by a PNG that has three megabytes of text after its pixels."""
    Image.open(data / IMAGE).save(data / "images/train/x.png")
    (data / IMAGE).unlink()
    content = (data / "images/train/x.png").read_bytes()
    body = b"zTXt" + b"meta\0\0" + zlib.compress(b"x" * 3_000_000)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (data / "images/train/x.png").write_bytes(content[:-12] + chunk + content[-12:])
    (data / LABEL).rename(data / "labels/train/x.txt")


def odd_names(data):
    """Give images the spaces that screenshots, Japanese folders and copied names have."""
    for number, name in enumerate(["9.41\u202fAM", "写真\u30001", "cow\u00a0herd", "deer\u200b1", "jabalí"]):
        (data / f"images/train/00{number}.jpg").rename(data / f"images/train/{name}.jpg")
        (data / f"labels/train/00{number}.txt").rename(data / f"labels/train/{name}.txt")


def nested_images(data):
    """Put a folder `images` into a folder `images`: only the last one gives its place to `labels`."""
    for kind in ("images", "labels"):
        (data / "images/wild" / kind).mkdir(parents=True)
        (data / kind / "train").rename(data / "images/wild" / kind / "train")
    data_yaml(train="images/wild/images/train")(data)


LABEL_CASES = {
    "a class above the last one": (rows(f"{BOX}2 0.5 0.5 0.1 0.1\n"), "class", 2),
    "a negative class": (rows("-1 0.5 0.5 0.1 0.1\n"), "class", 1),
    "half a class": (rows("0.5 0.5 0.5 0.1 0.1\n"), "class", 1),
    "a coordinate above 1": (rows(f"{BOX}\n0 1.5 0.5 0.1 0.1\n"), "coordinates", 3),
    "a coordinate in pixels": (rows("0 32 32 10 10\n"), "coordinates", 1),
    "a negative coordinate": (rows("0 0.5 -0.1 0.1 0.1\n"), "coordinates", 1),
    "a polygon that leaves the image": (rows("0 0.1 0.1 0.9 0.1 0.5 1.2\n"), "coordinates", 1),
    "four columns": (rows("0 0.5 0.5 0.1\n"), "columns", 1),
    "six columns": (rows("0 0.5 0.5 0.1 0.1 0.9\n"), "columns", 1),
    "half a point": (rows("0 0.1 0.1 0.9 0.1 0.5 0.5 0.6\n"), "columns", 1),
    "boxes among polygons": (rows(f"0 0.1 0.1 0.9 0.1 0.5 0.5\n{BOX}"), "columns", 2),
    "a word": (rows("cow 0.5 0.5 0.1 0.1\n"), "number", 1),
    "a nan": (rows("0 0.5 nan 0.1 0.1\n"), "number", 1),
    "infinity": (rows("0 0.5 0.5 inf 0.1\n"), "number", 1),
    "a negative height": (rows("0 0.5 0.5 0.1 -0.005\n"), "size", 1),
    "text that is not UTF-8": (lambda data: (data / LABEL).write_bytes(b"0 0.5 0.5 0.1 0.1\n\xff\n"), "encoding", 2),
}

FILE_CASES = {
    "no image at all": (image_bytes(lambda _: b"text"), "unreadable", IMAGE),
    "an empty file": (image_bytes(lambda _: b""), "unreadable", IMAGE),
    "a truncated JPEG": (image_bytes(lambda content: content[:-100]), "unreadable", IMAGE),
    "a JPEG without its last bytes": (image_bytes(lambda content: content[:-2]), "unreadable", IMAGE),
    "a PNG without its end": (png_without_end, "unreadable", "images/train/b.png"),
    "a GIF that is called JPEG": (gif_in_disguise, "unreadable", IMAGE),
    "a pipe instead of a file": (pipe_as_image, "unreadable", IMAGE),
    "a pipe among the labels": (lambda data: os.mkfifo(data / "labels/x.txt"), "unreadable", "labels/x.txt"),
    "a pipe as a list": (pipe_as_list, "unreadable", "train.txt"),
    "a pipe beside data.yaml": (lambda data: os.mkfifo(data / "notes"), "unreadable", "notes"),
    "an image of 9 px": (small_image, "small", IMAGE),
    "a label that is a broken link": (label_linked_nowhere, "unreadable", LABEL),
    "a label without image": (no_image, "orphan", LABEL),
    "a label one folder too high": (labels_in_the_wrong_folder, "orphan", "labels/001.txt"),
    "two images with one label": (same_stem, "shared label", "images/train/001.png"),
    "a picture in train and val": (same_picture, "duplicate", IMAGE),
    "an image that is a link": (image_linked_outside, "outside", IMAGE),
    "a label that is a link": (label_linked_outside, "outside", LABEL),
    "a folder that is a link": (folder_linked, "outside", "images/train"),
    "a link in a circle": (lambda data: (data / "images/up").symlink_to(data), "link", "images/up"),
    "a list with a missing image": (listed("./images/train/x.jpg"), "list", "train.txt"),
    "a list with a relative path": (listed("images/train/001.jpg"), "list", "train.txt"),
    "a list that leads up": (listed("./../data/images/train/001.jpg"), "outside", "train.txt"),
    "a list that leads elsewhere": (listed("/elsewhere/001.jpg"), "outside", "train.txt"),
}

YAML_CASES = {
    "absent": (lambda data: (data / "data.yaml").unlink(), "data.yaml"),
    "a pipe": (pipe_as_yaml, "unreadable"),
    "a link": (yaml_linked_outside, "outside"),
    "bad syntax": (raw_yaml(b"train: [a\nval: b"), "data.yaml"),
    "a date that is none": (raw_yaml(b"date: 2024-13-41"), "data.yaml"),
    "not UTF-8": (raw_yaml(b"names: [\xff]"), "data.yaml"),
    "a list": (raw_yaml(b"- train"), "data.yaml"),
    "empty": (raw_yaml(b""), "data.yaml"),
    "without names": (data_yaml(names=None), "data.yaml"),
    "names that are text": (data_yaml(names="animal"), "data.yaml"),
    "names with a gap": (data_yaml(names={0: "animal", 2: "bird"}), "data.yaml"),
    "names with keys of text": (data_yaml(names={"animal": 0}), "data.yaml"),
    "a class without name": (data_yaml(names=["animal", None]), "data.yaml"),
    "another nc": (data_yaml(nc=3), "data.yaml"),
    "an nc of text": (data_yaml(nc="two"), "data.yaml"),
    "without train": (data_yaml(train=None), "data.yaml"),
    "without val": (data_yaml(val=None), "data.yaml"),
    "a train that is a number": (data_yaml(train=7), "data.yaml"),
    "a val that is not there": (data_yaml(val="images/test"), "data.yaml"),
    "a train that leads up": (train_outside, "outside"),
    "a train that leads elsewhere": (data_yaml(train="/"), "outside"),
    "a train with a NUL": (data_yaml(train="images\0"), "outside"),
    "a train of 5,000 letters": (data_yaml(train="x" * 5000), "data.yaml"),
    "a value that is none": (raw_yaml(b"names: !!timestamp x"), "data.yaml"),
    "a path without the splits": (data_yaml(path="/content/data", train="train/images"), "outside"),
    "a path without text": (data_yaml(path=3), "outside"),
    "keypoints of text": (data_yaml(kpt_shape="17"), "data.yaml"),
    "no channel": (data_yaml(channels=0), "data.yaml"),
    "a split without images": (empty_split, "empty split"),
    "train without labels": (no_labels, "empty split"),
    "one folder for both": (data_yaml(val="images"), "overlap"),
}


def found(data, **options):
    """Check a dataset and return kind, file and line of each problem."""
    return [(problem.kind, problem.path, problem.line) for problem in check_dataset(data, **options).problems]


@pytest.mark.parametrize(("break_it", "kind", "line"), LABEL_CASES.values(), ids=LABEL_CASES)
def test_a_broken_label_is_reported_with_its_line(data, break_it, kind, line):
    """Each row that Ultralytics would refuse or drop is reported, with file and line, and nothing else is."""
    break_it(data)
    assert found(data) == [(kind, LABEL, line)]


@pytest.mark.parametrize(("break_it", "kind", "path"), FILE_CASES.values(), ids=FILE_CASES)
def test_a_broken_file_is_reported(data, break_it, kind, path):
    """Each file that cannot be trained on, or does not belong there, is reported."""
    break_it(data)
    assert (kind, path) in [(kind, path) for kind, path, _ in found(data)]


@pytest.mark.parametrize(("break_it", "kind"), YAML_CASES.values(), ids=YAML_CASES)
def test_a_broken_data_yaml_is_reported(data, break_it, kind):
    """A data.yaml that is absent, unreadable, incomplete or leads out of its folder is reported."""
    break_it(data)
    assert (kind, "data.yaml") in [(kind, path) for kind, path, _ in found(data)]


ACCEPTED = {
    "a path of a dot": data_yaml(path="."),
    "its own path": lambda data: data_yaml(path=str(data))(data),
    "its own path, twice": lambda data: data_yaml(path=str(data), train=f"{data}/images/train")(data),
    "the path of another machine, twice": data_yaml(path="/content/d", train="/content/d/images/train"),
    "the path of another machine": data_yaml(path="/content/data"),
    "its own name": data_yaml(path="data"),
    "a name of another folder": data_yaml(path="datasets/zoo"),
    "a path that leads up": data_yaml(path="../datasets/zoo"),
    "a folder below": in_a_folder_below,
    "another name": lambda data: (data / "data.yaml").rename(data / "dataset.yaml"),
    "another ending": lambda data: (data / "data.yaml").rename(data / "zoo.yml"),
    "bytes after a JPEG": image_bytes(lambda content: content + b"\0" * 64),
    "a PNG with much text": png_with_much_text,
    "names with odd spaces": odd_names,
    "rows without area": rows("0 0.5 0.5 0 0.1\n1 0.1 0.5 0.4 0 \n"),
    "a polygon without height": rows("0 0.1 0.5 0.4 0.5 0.9 0.5\n"),
    "nested folders `images`": nested_images,
    "Roboflow's paths": data_yaml(train="../images/train", val="../images/val", test="../images/test"),
    "folders in a list": data_yaml(train=["images/train"], val=["images/val"]),
    "numbered names": data_yaml(names={1: "bird", "0": "animal"}),
    "the right nc": data_yaml(nc="2"),
    "the word validation": data_yaml(val=None, validation="images/val"),
    "a list of images": listed("", *(f"./images/train/00{number}.jpg" for number in range(1, 8))),
    "classes among the labels": lambda data: (data / "labels/train/classes.txt").write_text("animal\nbird\n"),
    "a hidden file": lambda data: (data / "labels/train/.a.txt").write_text("x"),
    "a text beside data.yaml": lambda data: (data / "readme.txt").write_text("x"),
    "a mark before the rows": lambda data: (data / LABEL).write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\r\n"),
    "a coordinate at the edge": rows("0 1.005 0.5 0.2 0.2\n"),
    "polygons": rows("0 0.1 0.1 0.9 0.1 0.5 0.5\n1 0.1 0.1 0.9 0.1 0.5 0.5 0.3 0.4\n"),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_what_ultralytics_accepts_is_accepted(data, change):
    """A sound dataset has no problems, in each way in which it may be written, and all its images count."""
    change(data)
    report = check_dataset(data)
    assert (report.problems, report.names) == ((), ("animal", "bird"))
    assert {name: counts.num_images for name, counts in report.splits.items()} == {"train": 8, "val": 4}


def test_a_link_inside_is_followed(data):
    """A folder that is linked to another place of the dataset counts as what it leads to."""
    linked_inside(data)
    report = check_dataset(data)
    assert (report.problems, report.splits["train"].num_labelled) == ((), 8)


def test_links_that_lead_out_are_followed_if_allowed(data):
    """A folder outside is refused with the flag that allows it, and counts if it was given."""
    folder_linked(data)
    assert any("--follow-links" in str(problem) for problem in check_dataset(data).problems)
    report = check_dataset(data, follow_links=True)
    assert (report.problems, report.splits["train"].num_labelled) == ((), 8)


def test_links_among_links_come_to_an_end(data):
    """Folders that are linked to each other in many ways are refused, and not walked for ever."""
    for name in "abcdefgh":
        (data / name).mkdir()
        for other in "abcdefgh":
            (data / name / other).symlink_to(data / other)
    assert "link" in {problem.kind for problem in check_dataset(data).problems}


def test_images_instances_and_background_are_counted(data):
    """The counts of a split are those of its labels; background is an image without label or with an empty one."""
    for label in (data / "labels/train").iterdir():
        label.write_text(f"{BOX}1 0.2 0.2 0.1 0.1\n1 0.7 0.7 0.1 0.1\n")
    (data / LABEL).unlink()
    (data / "labels/train/002.txt").write_text("\n")
    assert check_dataset(data).splits["train"] == SplitCounts(8, 6, 2, 1, (6, 12))


def warnings_of(data, **options):
    """Check a dataset that has no problems, and return what a person should know."""
    report = check_dataset(data, **options)
    assert report.problems == ()
    return report.warnings


def test_images_without_a_label_file_are_reported(data):
    """The number of images without a label file is reported for each split; an empty label is not missing."""
    for number in (1, 2):
        (data / f"labels/train/00{number}.txt").unlink()
    (data / "labels/val/000.txt").write_text("")
    assert warnings_of(data) == ("train: 2 of 8 images without a label file, counted as background",)


@pytest.mark.parametrize(
    "place",
    ["images/train/001.txt", "labels/train/001.TXT", "Labels/train/001.txt", "labels/train/001.jpg.txt", "old/001.txt"],
)
def test_a_label_that_will_not_be_used_is_reported(data, place):
    """An image whose label lies where Ultralytics does not look, or has another name, is reported with that label."""
    (data / place).parent.mkdir(parents=True, exist_ok=True)
    (data / LABEL).rename(data / place)
    problems = [problem for problem in check_dataset(data).problems if problem.kind == "unused label"]
    assert [problem.path for problem in problems] == [IMAGE]
    assert place in problems[0].message


def test_labels_beside_images_in_a_folder_called_images_are_reported(data):
    """Labels beside the images are used where no folder is called `images`, and reported where one is."""
    for split in ("train", "val"):
        (data / "images" / split).rename(data / split)
        for label in (data / "labels" / split).iterdir():
            label.rename(data / split / label.name)
    data_yaml(train=["train", "more"], val="val")(data)
    (data / "more/images").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(data / "more/images/x.jpg")
    (data / "more/images/x.txt").write_text(BOX)
    assert found(data) == [("unused label", "more/images/x.jpg", None)]


@pytest.mark.parametrize("text", ["", "a cow and a bird", "1 2 3"])
def test_text_beside_an_image_is_no_label(data, text):
    """A text with the name of an image that shows nothing is let be if it has no rows."""
    (data / LABEL).unlink()
    (data / "images/train/001.txt").write_text(text)
    assert found(data) == []


@pytest.mark.parametrize("suffix", ["xml", "json"])
def test_annotations_of_another_format_are_a_warning(data, suffix):
    """An image that has annotations in another format, and no label, is reported."""
    (data / LABEL).unlink()
    (data / "annotations").mkdir()
    (data / f"annotations/001.{suffix}").write_text("<annotation/>")
    assert [IMAGE in warning and suffix in warning for warning in warnings_of(data)] == [False, True]


def test_a_second_label_beside_the_image_is_a_warning(data):
    """Of two labels of one image, the one that is not read is reported."""
    (data / "images/train/001.txt").write_text(BOX)
    assert ["images/train/001.txt" in warning for warning in warnings_of(data)] == [True]


@pytest.mark.parametrize("path", ["datasets/zoo", "/content/zoo"])
def test_a_path_that_is_taken_for_this_folder_is_a_warning(data, path):
    """A `path` that names the folder by an older name is reported."""
    data_yaml(path=path)(data)
    assert ["`path` is" in warning and "is taken for it" in warning for warning in warnings_of(data)] == [True]


def test_another_data_file_is_a_warning(data):
    """The only YAML file is read under any name, and reported; of two, none is chosen."""
    (data / "data.yaml").rename(data / "dataset.yaml")
    assert warnings_of(data) == ("dataset.yaml: is read in place of data.yaml",)
    (data / "other.yaml").write_text("x: y")
    assert ["dataset.yaml and other.yaml" in str(problem) for problem in check_dataset(data).problems] == [True]


def test_classes_without_names_are_called_as_stock_calls_them(data):
    """With `nc` and no names, the classes get the names that Ultralytics gives, with a warning."""
    data_yaml(names=None, nc=2)(data)
    assert check_dataset(data).names == ("class_0", "class_1")
    assert ["class_0 to class_1" in warning for warning in warnings_of(data)] == [True]


def test_one_class_makes_the_numbers_of_classes_free(data):
    """Labels of more classes than there are names are refused, unless all classes count as one."""
    data_yaml(names=["animal"])(data)
    assert {kind for kind, _, _ in found(data)} == {"class"}
    (data / LABEL).write_text("79 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n")
    report = check_dataset(data, single_class=True)
    assert report.problems == ()
    rows = sum(len(path.read_text().splitlines()) for path in (data / "labels/train").iterdir())
    assert report.splits["train"].instances == (rows,)


def test_rows_that_are_there_twice_count_once(data):
    """Of equal rows training sees one, and one is counted."""
    before = check_dataset(data).splits["train"].instances
    with (data / LABEL).open("a") as opened:
        opened.write("1 0.31 0.31 0.07 0.07\n" * 3)
    assert check_dataset(data).splits["train"].instances == (before[0], before[1] + 1)


def test_rows_without_area_are_a_warning(data):
    """A box without width, which stock accepts, is reported."""
    (data / LABEL).write_text("0 0.5 0.5 0 0.1\n")
    assert ["without area" in warning for warning in warnings_of(data)] == [True]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("row", ["0 0.5 0.5 0 0.1\n", "0 0.5 0.5 0.1 0\n", "0 0.5 0.1 0.5 0.2 0.5 0.3\n"])
def test_a_split_without_any_area_is_empty(data, split, row):
    """Rows without area alone are nothing to learn from or to measure by; one with an area is."""
    labels = sorted((data / f"labels/{split}").iterdir())
    for label in labels:
        label.write_text(row)
    for _ in ("read", "remembered"):
        report = check_dataset(data, cache_file=data / SCAN_CACHE)
        assert [(problem.kind, problem.path) for problem in report.problems] == [("empty split", "data.yaml")]
        assert f"`{split}` has labels, but no row with an area" in report.problems[0].message
    labels[0].write_text(BOX)
    for _ in ("read", "remembered"):
        assert found(data, cache_file=data / SCAN_CACHE) == []


def test_a_file_in_an_encoding_of_windows_is_refused(data):
    """A data.yaml in cp1252 is refused with its line and what to do; stock would lose a letter."""
    (data / "data.yaml").write_bytes("train: images/train\nnames: [jabalí]\n".encode("cp1252"))
    (problem,) = check_dataset(data).problems
    assert str(problem) == "data.yaml: is not UTF-8 text, in line 2; save it as UTF-8"


@pytest.mark.parametrize(
    "content",
    [
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a {k: 1}\n"
        + "".join(
            f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: &a [*a]\n",
        "[" * 600,
        "x: " + "y" * 2_000_000,
        "names: {0: a}\nnc: 1000000000000\n",
        "nc: 1.0e+300\n",
        "channels: 1000000\nnames: [a]\n",
    ],
    ids=["aliases", "merges", "a circle", "depth", "length", "nc of a billion", "a huge nc", "a million channels"],
)
def test_a_data_yaml_that_is_built_to_fill_the_memory_is_refused(data, content):
    """Content that would grow without bound is refused before it does."""
    tracemalloc.start()
    (data / "data.yaml").write_text(content)
    assert "data.yaml" in {kind for kind, _, _ in found(data)}
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


def test_rows_that_occur_twice_are_a_warning(data):
    """A row that occurs twice counts once, and the report says where."""
    (data / LABEL).write_text(BOX * 2)
    report = check_dataset(data)
    assert report.problems == ()
    assert [LABEL in warning for warning in report.warnings] == [True]


def test_a_test_split_that_is_missing_is_a_warning(data):
    """A split that training does not read may be missing."""
    data_yaml(test="images/test")(data)
    report = check_dataset(data)
    assert (report.problems, list(report.splits)) == ((), ["train", "val"])
    assert ["images/test" in warning for warning in report.warnings] == [True]


def test_keypoints_are_cut_off(data):
    """The rows of a dataset of poses count as the boxes that they begin with."""
    data_yaml(kpt_shape=[1, 2])(data)
    (data / LABEL).write_text("0 0.5 0.5 0.2 0.2 0.4 0.4\n")
    assert found(data) == []
    data_yaml(kpt_shape=None)(data)
    (data / LABEL).write_text("0 0.5 0.5 0.2 0.2 0.4 0.4 9 9\n")
    assert found(data) == [("coordinates", LABEL, 1)]


def test_labels_are_not_looked_for_above_the_dataset(tmp_path):
    """A dataset without a folder `images`, below one, is refused: Ultralytics would look for its labels outside."""
    data = make_tiny_dataset(tmp_path / "images" / "data")
    (data / "images/train").rename(data / "train")
    data_yaml(train="train")(data)
    assert ("outside", "data.yaml", None) in found(data)


def test_all_problems_are_reported_at_once(data):
    """Problems of data.yaml, labels, images and pairs are listed together, and the message says how many."""
    data_yaml(nc=3)(data)
    (data / LABEL).write_text("7 0.5 0.5 0.1 0.1\n0 2 0.5 0.1 0.1\n")
    (data / "images/train/002.jpg").write_bytes(b"text")
    (data / "images/val/003.jpg").unlink()
    report = check_dataset(data)
    with pytest.raises(DataError, match=r"dataset wild: 5 problems found; correct them") as raised:
        report.raise_if_broken("dataset wild")
    assert [line.partition(": ")[0] for line in raised.value.problems] == [
        "data.yaml",
        "images/train/002.jpg",
        f"{LABEL}:1",
        f"{LABEL}:2",
        "labels/val/003.txt",
    ]


def test_problems_of_one_cause_are_one_line(data):
    """A list of classes that is too short is one line, whatever the number of rows and files; mistakes that differ in
    their numbers alone are three lines and a count.
    """
    labels = sorted(path.relative_to(data).as_posix() for path in (data / "labels/train").iterdir())
    for number, label in enumerate(labels):
        (data / label).write_text(f"7 0.5 0.5 0.1 0.1\n7 0.4 0.5 0.1 0.1\n0 {number + 2} 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=f"{3 * len(labels)} problems found") as raised:
        check_dataset(data).raise_if_broken("data")
    classes, *coordinates, others = raised.value.problems
    places = f"{labels[0]}:1, {labels[0]}:2, {labels[1]}:1 and {2 * len(labels) - 3} more, in {len(labels)} files"
    assert classes == f"{places}: class 7 is not among the classes, 0 to 1; correct it, or `names` in data.yaml"
    assert [line.partition(" is")[0] for line in coordinates] == [f"{labels[i]}:3: {i + 2}" for i in range(3)]
    assert others == f"... and {len(labels) - 3} more like these"


def test_each_file_of_a_few_is_named(data):
    """Up to three files with one mistake are all named, and so is every mistake that has a remedy of its own."""
    for number in (0, 1):
        (data / f"labels/train/lost{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (data / LABEL).write_text("7 0.5 0.5 0.1 0.1\n0 2 0.5 0.1 0.1\n")
    with pytest.raises(DataError) as raised:
        check_dataset(data).raise_if_broken("data")
    assert [line.partition(": ")[0] for line in raised.value.problems] == [
        *(f"{LABEL}:1", f"{LABEL}:2"),
        "labels/train/lost0.txt, labels/train/lost1.txt",
    ]


def test_a_sound_dataset_raises_nothing(data):
    """A dataset without problems is let through."""
    check_dataset(data).raise_if_broken("data")


def test_progress_reaches_the_end(data, monkeypatch):
    """Every file is reported as done once, and the last one completes the work."""
    seen = []
    monkeypatch.setattr("job.datasets.check.Progress.to", lambda _bar, done, total: seen.append((done, total)))
    check_dataset(data)
    assert seen == [(number, 24) for number in range(1, 25)]


@pytest.fixture
def decoded(monkeypatch):
    """Count the images that are decoded."""
    lock, names = threading.Lock(), []
    decode = image.decode

    def count(data, name, *args, **options):
        with lock:
            names.append(name)
        return decode(data, name, *args, **options)

    monkeypatch.setattr(image, "decode", count)
    return names


def test_unchanged_files_are_not_decoded_again(data, tmp_path, decoded):
    """A second check decodes no image and has the same result; a changed image is read again."""
    (data / LABEL).write_text("7 0.5 0.5 0.1 0.1\n")
    (data / IMAGE).write_bytes(b"text")
    cache = tmp_path / "cache.sqlite"
    first = check_dataset(data, cache_file=cache)
    num_decoded = len(decoded)
    assert num_decoded >= 11
    assert check_dataset(data, cache_file=cache) == first
    assert len(decoded) == num_decoded
    image_bytes(lambda _: (data / "images/train/000.jpg").read_bytes() + b"\0")(data)
    assert [problem.kind for problem in check_dataset(data, cache_file=cache).problems] == ["class"]
    assert len(decoded) == num_decoded + 1


def test_touched_files_are_not_decoded_again(data, tmp_path, decoded):
    """A file of another date but with the same bytes is hashed and not decoded."""
    cache = tmp_path / "cache.sqlite"
    check_dataset(data, cache_file=cache)
    num_decoded = len(decoded)
    for path in (data / "images/train").iterdir():
        os.utime(path, (0, 0))
    assert found(data, cache_file=cache) == []
    assert len(decoded) == num_decoded


def test_a_file_that_is_changed_in_place_is_read_again(data, tmp_path):
    """A label whose size stays is not taken for what it was."""
    (data / LABEL).write_text("1 0.5 0.5 0.1 0.1\n")
    cache = tmp_path / "cache.sqlite"
    assert found(data, cache_file=cache) == []
    (data / LABEL).write_text("7 0.5 0.5 0.1 0.1\n")
    assert found(data, cache_file=cache) == [("class", LABEL, 1)]


def test_other_classes_are_checked_anew(data, tmp_path):
    """Cached findings of a label are dropped with the classes that it was checked against."""
    (data / LABEL).write_text("1 0.5 0.5 0.1 0.1\n")
    cache = tmp_path / "cache.sqlite"
    assert found(data, cache_file=cache) == []
    data_yaml(names=["animal"])(data)
    assert ("class", LABEL, 1) in found(data, cache_file=cache)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"schema": 1}', None])
def test_a_broken_cache_costs_time_only(data, tmp_path, content):
    """A cache that cannot be understood, or is only half there, is made anew."""
    cache = tmp_path / "cache.sqlite"
    rows("7 0.5 0.5 0.1 0.1\n")(data)
    check_dataset(data, cache_file=cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert found(data, cache_file=cache) == [("class", LABEL, 1)]
    assert cache.read_bytes() == whole


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_cache_that_is_no_file_costs_time_only(data, make):
    """A pipe, a device or a folder in the place of the cache is not read."""
    make(data / SCAN_CACHE)
    assert found(data, cache_file=data / SCAN_CACHE) == []


@pytest.mark.parametrize("row", ["[" * 100_000, '["1", "a", {"instances": [[1, 1e999]]}]', '["1", "a", {}, 1]', "{}"])
def test_a_cache_that_was_built_to_do_harm_costs_time_only(data, row):
    """A row without end of depth, with a number without end, or of another shape is none."""
    CacheFile(data / SCAN_CACHE, scan.SCHEMA).write({LABEL: row})
    assert found(data, cache_file=data / SCAN_CACHE) == []


def test_a_cache_that_cannot_be_written_costs_time_only(data, tmp_path):
    """A check works without its cache."""
    assert found(data, cache_file=tmp_path / "nowhere" / "cache.sqlite") == []


def quarantine(data, aside):
    """Set broken files aside, and return their names."""
    names = broken_files(data, check_dataset(data))
    set_aside(data, names, aside)
    return names


@pytest.mark.parametrize(
    ("break_it", "moved"),
    [
        (rows("7 0.5 0.5 0.1 0.1\n"), [IMAGE, LABEL]),
        (image_bytes(lambda content: content[:-9]), [IMAGE, LABEL]),
        (no_image, [LABEL]),
        (labels_in_the_wrong_folder, [IMAGE, "labels/001.txt"]),
        (same_stem, [IMAGE, "images/train/001.png", LABEL]),
        (same_picture, [IMAGE, LABEL]),
        (image_linked_outside, [IMAGE, LABEL]),
        (pipe_as_image, [IMAGE, LABEL]),
    ],
)
def test_quarantine_sets_broken_pairs_aside(data, tmp_path, break_it, moved):
    """A broken file is moved under its name, with its counterpart, and what stays is sound."""
    break_it(data)
    before = {path.relative_to(data).as_posix() for path in data.rglob("*") if not path.is_dir()}
    assert quarantine(data, tmp_path / "aside") == moved
    aside = [path.relative_to(tmp_path / "aside").as_posix() for path in (tmp_path / "aside").rglob("*")]
    assert [name for name in sorted(aside) if "." in name] == moved
    after = {path.relative_to(data).as_posix() for path in data.rglob("*") if not path.is_dir()}
    assert after == before - set(moved)
    assert found(data) == []


def test_quarantine_strikes_images_from_lists(data, tmp_path):
    """Quarantined and missing images are removed from a list of images."""
    listed("./images/train/001.jpg", "./images/train/x.jpg", "./images/train/002.jpg")(data)
    (data / IMAGE).write_bytes(b"text")
    assert quarantine(data, tmp_path / "aside") == [IMAGE, LABEL]
    assert (data / "train.txt").read_text() == "./images/train/000.jpg\n./images/train/002.jpg\n"
    assert found(data) == []


def test_quarantine_again_replaces_what_was_set_aside(data, tmp_path):
    """A file that was brought back and is still broken is set aside again."""
    for _ in range(2):
        (data / IMAGE).write_bytes(b"text")
        (data / LABEL).write_text(BOX)
        assert quarantine(data, tmp_path / "aside") == [IMAGE, LABEL]


@pytest.mark.parametrize("break_it", [data_yaml(nc=3), empty_split, lambda data: (data / "data.yaml").unlink()])
def test_quarantine_leaves_what_it_cannot_cure(data, tmp_path, break_it):
    """Problems that no move cures are there after it."""
    break_it(data)
    problems = found(data)
    assert quarantine(data, tmp_path / "aside") == []
    assert found(data) == problems != []


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_the_training_yaml_leads_ultralytics_to_the_data(confined, data, tmp_path, monkeypatch, change):
    """Ultralytics accepts the file that is written, and reads the classes and as many labels as were counted."""
    from ultralytics.data.dataset import YOLODataset  # noqa: PLC0415 -- slow
    from ultralytics.data.utils import check_det_dataset  # noqa: PLC0415

    change(data)
    report = check_dataset(data)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_training_yaml(data, report, tmp_path / "training.yaml")
    read = check_det_dataset(tmp_path / "training.yaml", autodownload=False)
    assert read["names"] == {0: "animal", 1: "bird"}
    for name, counts in report.splits.items():
        labels = YOLODataset(img_path=read[name], data=read, imgsz=64).labels
        assert (len(labels), sum(len(label["cls"]) for label in labels)) == (counts.num_images, sum(counts.instances))


def test_the_training_yaml_passes_on_nothing_that_could_be_run(data, tmp_path):
    """Of the keys of data.yaml, only those are written that say how to read the data."""
    data_yaml(download="import os", channels=3, kpt_shape=[17, 3])(data)
    write_training_yaml(data, check_dataset(data), tmp_path / "training.yaml")
    assert yaml.safe_load((tmp_path / "training.yaml").read_text()) == {
        "path": str(data),
        "train": ["images/train"],
        "val": ["images/val"],
        "names": {0: "animal", 1: "bird"},
        "channels": 3,
        "kpt_shape": [17, 3],
    }


def test_a_folder_that_is_no_dataset_is_left_as_it_is(tmp_path):
    """Nothing is cached in a folder without an image or a label."""
    (tmp_path / "notes.md").write_text("none\n")
    assert check_dataset(tmp_path, cache_file=tmp_path / ".scan.sqlite").problems
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]
