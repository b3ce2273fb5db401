"""Import of a user's dataset: recognised, converted, split; hostile archives and annotations are refused."""

import json
import logging
import os
import re
import shlex
import shutil
import zipfile

import pytest
import yaml
from PIL import Image

from job.cli.app import main
from job.datasets.check import check_dataset
from job.datasets.coco import read_coco
from job.datasets.import_folder import dataset_name, imported, push_source
from job.datasets.layout import is_image, label_of
from job.datasets.lockfile import read_version
from job.errors import DataError, MachineError
from job.storage.local import FolderStore
from tests.support.tiny_dataset import make_tiny_dataset

PX = 64


@pytest.fixture
def flights(tmp_path):
    """A YOLO folder without a split: five flights of four pictures in a folder each, and classes.txt."""
    drawn = make_tiny_dataset(tmp_path / "drawn", num_train=20, num_val=1)
    folder = tmp_path / "photos"
    for number in range(20):
        for kind, suffix in (("images", "jpg"), ("labels", "txt")):
            target = folder / kind / f"flight{number // 4}" / f"DJI_{number:04}.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / kind / "train" / f"{number:03}.{suffix}", target)
    (folder / "classes.txt").write_text("animal\nbird\n")
    return folder


def splits_of(folder):
    """Return the names of a dataset's pictures by split."""
    found = {split: sorted((folder / "images" / split).rglob("*")) for split in ("train", "val")}
    return {split: [path for path in paths if path.is_file()] for split, paths in found.items()}


def zipped(folder, target, below=""):
    """Write a folder as a ZIP archive, as programs do: with entries for folders, and hidden files of a Mac."""
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("__MACOSX/._photos", b"x")
        for path in sorted(folder.rglob("*")):
            archive.write(path, below + path.relative_to(folder).as_posix())
    return target


def as_coco(folder, annotations, images, ids=(3, 7), beside=""):
    """Write the labels of some images as COCO annotations whose category ids have gaps, with a parent class."""
    rows = []
    for number, image in enumerate(images):
        for line in (folder / label_of(image)).read_text().splitlines():
            kind, x, y, w, h = map(float, line.split())
            box = [(x - w / 2) * PX, (y - h / 2) * PX, w * PX, h * PX]
            rows.append({"id": len(rows), "image_id": number, "category_id": ids[int(kind)], "bbox": box})
    content = {
        "images": [
            {"id": number, "file_name": image.removeprefix(beside), "width": PX, "height": PX}
            for number, image in enumerate(images)
        ],
        "annotations": rows,
        "categories": [
            {"id": 0, "name": "animals", "supercategory": "none"},
            *({"id": number, "name": name, "supercategory": "animals"} for number, name in zip(ids, "ab", strict=True)),
        ],
    }
    (folder / annotations).parent.mkdir(parents=True, exist_ok=True)
    (folder / annotations).write_text(json.dumps(content))
    return content


def images_in(folder):
    """Return the pictures of a folder."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in names if is_image(name))


def test_a_yolo_folder_with_splits_is_taken_as_it_is(tmp_path):
    """No copy and no link is made of a folder that can be pushed, nor of one whose mistakes the push will report."""
    folder = make_tiny_dataset(tmp_path / "wild")
    for source in (folder, folder / "data.yaml"):
        with imported(source, tmp_path / "work", "wild") as found:
            assert (found.folder, found.is_staged) == (folder, False)


def test_a_list_of_classes_that_fills_the_memory_is_refused(flights, tmp_path):
    """The size of a list is looked at before it is read; this one has a terabyte of nothing."""
    with (flights / "classes.txt").open("r+b") as opened:
        opened.truncate(1 << 40)
    with (
        pytest.raises(DataError, match=r"classes\.txt has more than 64,000,000 bytes; list the classes, one a line"),
        imported(flights, tmp_path / "work", "wild"),
    ):
        pass


@pytest.mark.parametrize("val", [None, "images/val", "images/train"], ids=["left out", "not there", "as train"])
def test_a_folder_without_val_gets_one(tmp_path, val, caplog):
    """A data file without a validation split, as of an export of train alone, gets whole flights, and that is said."""
    folder = make_tiny_dataset(tmp_path / "wild", num_train=20)
    shutil.rmtree(folder / "images/val")
    for number in range(20):
        for kind, suffix in (("images", "jpg"), ("labels", "txt")):
            path = folder / kind / "train" / f"{number:03}.{suffix}"
            path.rename(path.with_name(f"flight{number // 5}_{number:04}_jpg.rf.{number:032x}.{suffix}"))
    shutil.rmtree(folder / "labels/val")
    data = {"train": "images/train", "names": ["animal", "bird"]} | ({"val": val} if val else {})
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    with caplog.at_level(logging.INFO), imported(folder, tmp_path / "work", "wild") as found:
        report = check_dataset(found.folder, follow_links=True)
    assert (found.is_staged, report.problems, report.names) == (True, (), ("animal", "bird"))
    assert (report.splits["train"].num_images, report.splits["val"].num_images) == (15, 5)
    assert len({path.name.partition("_")[0] for path in splits_of(found.folder)["val"]}) == 1
    assert "val is 1 of 4 flights, 5 of 20 pictures" in caplog.text


def test_a_second_data_file_is_not_passed_over(tmp_path):
    """A data file that is named, and beside which another one would be read, is refused."""
    folder = make_tiny_dataset(tmp_path / "wild")
    shutil.copy(folder / "data.yaml", folder / "other.yaml")
    message = "data.yaml beside it would be read"
    with pytest.raises(DataError, match=message), imported(folder / "other.yaml", tmp_path / "work", "wild"):
        pass


def test_pictures_without_any_for_training_are_refused(flights, tmp_path):
    """A single picture, or a test split alone, is answered before anything is pushed."""
    (flights / "images/flight0").rename(flights / "images/test")
    for number in range(1, 5):
        shutil.rmtree(flights / f"images/flight{number}")
    message = "photos: has no pictures for training, 4 in test; add some"
    with pytest.raises(DataError, match=message), imported(flights, tmp_path / "work", "photos"):
        pass


def test_a_dry_run_of_new_pictures_would_start(flights, tmp_path, capsys):
    """Pictures that would be pushed first are in no bucket yet; a path without any is a reason not to start."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    for path, told in ((flights, "would be checked and pushed first"), (tmp_path / "none", "no such file or folder")):
        assert main(["train", "base", "--data", str(path), "--bucket", str(tmp_path / "bucket"), "--dry-run"]) == 0
        err = capsys.readouterr().err
        assert told in err
        assert ("it would not start" in err) == (path != flights)
    assert store.list() == []


def test_a_name_that_leads_out_of_the_working_folder_makes_no_folder(tmp_path):
    """The name of a dataset is checked before anything is written."""
    folder = make_tiny_dataset(tmp_path / "wild")
    store = FolderStore.create(str(tmp_path / "bucket"))
    with pytest.raises(DataError, match="is not a name"):
        push_source(store, folder, "../../out", tmp_path / "work")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bucket", "wild"]


def test_a_folder_may_be_called_by_bytes_that_are_no_text(tmp_path):
    """The path of the pictures is no part of a dataset, so that an old disk's name of a folder is no obstacle."""
    folder = make_tiny_dataset(tmp_path / "wild").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    FolderStore.create(str(tmp_path / "bucket"))
    words = ["data", "push", str(folder), "--dataset", "wild", "--bucket", str(tmp_path / "bucket")]
    assert main(words) == 0


def test_names_that_are_no_text_are_refused_by_the_check(flights, tmp_path, capsys):
    """A bucket takes none of them, which is said of a dataset that has no split as of any other."""
    for kind in ("images", "labels"):
        (flights / kind / "flight0").rename(flights / kind / os.fsdecode(b"caf\xe9"))
    FolderStore.create(str(tmp_path / "bucket"))
    assert main(["data", "push", str(flights), "--bucket", str(tmp_path / "bucket")]) == 65
    assert "has a name that no bucket takes" in capsys.readouterr().err


def test_a_val_that_is_mistyped_is_no_reason_to_split(tmp_path):
    """A data file whose val is not there, beside pictures in no split, is left to the check, which refuses it."""
    folder = make_tiny_dataset(tmp_path / "wild")
    data = {"train": "images/train", "val": "images/vall", "names": ["animal", "bird"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    with imported(folder, tmp_path / "work", "wild") as found:
        assert not found.is_staged


def test_labels_with_a_list_of_classes_are_a_dataset(flights, tmp_path, caplog):
    """Pictures and labels without data.yaml are split by their folders; no picture is copied."""
    with caplog.at_level(logging.INFO), imported(flights, tmp_path / "work", "photos") as found:
        report = check_dataset(found.folder, follow_links=True)
    assert (report.problems, report.names) == ((), ("animal", "bird"))
    assert "val is 1 of 5 folders, 4 of 20 pictures" in caplog.text
    paths = splits_of(found.folder)
    assert [len(paths[split]) for split in ("train", "val")] == [16, 4]
    assert all(path.is_symlink() for path in paths["train"] + paths["val"])


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ("animal\nbird\n", "animal\n", None),
        ("animal\nbird\n", "bird\nanimal\n", "labels/classes.txt: differs from classes.txt"),
        ("animal\n\nbird\n\n", "animal\n", "classes.txt:2: names no class"),
    ],
    ids=["older", "differ", "blank"],
)
def test_lists_of_classes_have_to_agree(flights, tmp_path, first, second, problem):
    """A list in another folder may be an older one, with fewer classes; a blank line would shift the numbers."""
    (flights / "classes.txt").write_text(first)
    (flights / "labels/classes.txt").write_text(second)
    if problem is None:
        with imported(flights, tmp_path / "work", "photos") as found:
            names = yaml.safe_load((found.folder / "data.yaml").read_text())["names"]
        assert list(names.values()) == ["animal", "bird"]
    else:
        with pytest.raises(DataError) as caught, imported(flights, tmp_path / "work", "photos"):
            pass
        assert [*caught.value.problems] == [problem]


def test_labels_beside_their_pictures_are_found(flights, tmp_path):
    """CVAT's YOLO 1.1 has pictures and labels in one folder, and the classes in obj.names."""
    for path in [*(flights / "images").rglob("*.jpg"), *(flights / "labels").rglob("*.txt")]:
        target = flights / "obj_train_data" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    (flights / "classes.txt").rename(flights / "obj.names")
    with imported(flights, tmp_path / "work", "photos") as found:
        report = check_dataset(found.folder, follow_links=True)
    assert (report.problems, report.splits["train"].num_images, report.splits["val"].num_images) == ((), 16, 4)
    assert report.splits["train"].num_without_label == 0


@pytest.mark.parametrize("form", ["beside", "folder", "file", "zip"])
def test_coco_annotations_are_converted(flights, tmp_path, form):
    """Boxes, classes and splits of COCO annotations are those of the same labels in YOLO form."""
    images = images_in(flights)
    if form == "beside":  # as Roboflow exports: a file of annotations in the folder of each split
        for split, chosen in (("train", images[:16]), ("valid", images[16:])):
            for image in chosen:
                target = flights / split / image.rpartition("/")[2]
                target.parent.mkdir(exist_ok=True)
                shutil.copy(flights / image, target)
            content = as_coco(flights, f"{split}/_annotations.coco.json", chosen)
            for image in content["images"]:
                image["file_name"] = image["file_name"].rpartition("/")[2]
            (flights / f"{split}/_annotations.coco.json").write_text(json.dumps(content))
        shutil.rmtree(flights / "images")
    else:
        as_coco(flights, "annotations/instances_default.json", images, beside="images/")
    before = {path.stem: path.read_text() for path in (flights / "labels").rglob("*.txt")}
    shutil.rmtree(flights / "labels")
    (flights / "classes.txt").unlink()
    source = flights / "annotations/instances_default.json" if form == "file" else flights
    if form == "file":
        source = shutil.move(source, flights / "default.json")
    if form == "zip":
        source = zipped(flights, tmp_path / "photos.zip", "export/")
    with imported(source, tmp_path / "work", "photos") as found:
        report = check_dataset(found.folder, follow_links=True)
    assert (report.problems, report.names) == ((), ("a", "b"))
    assert (report.splits["train"].num_images, report.splits["val"].num_images) == (16, 4)
    labels = {path.stem: path for path in (found.folder / "labels").rglob("*.txt")}
    for stem, text in before.items():
        expected = sorted([float(word) for word in line.split()] for line in set(text.splitlines()))
        converted = sorted([float(word) for word in line.split()] for line in labels[stem].read_text().splitlines())
        assert [row == pytest.approx(other, abs=1e-5) for row, other in zip(converted, expected, strict=True)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda coco: coco["images"][0].update(file_name="../../secret.jpg"), "is no picture that is there"),
        (lambda coco: coco["images"][0].update(file_name="/etc/passwd"), "is no picture that is there"),
        (lambda coco: coco["images"][0].update(width=PX // 2), "64 x 64 px, and annotated as 32 x 64 px"),
        (lambda coco: coco["annotations"][0].update(category_id=99), "category 99 is not among"),
        (lambda coco: coco["annotations"][0].update(image_id=99), "annotations of image 99"),
        (lambda coco: coco["annotations"][0].update(bbox=[1, 2, 3]), "annotations.*bbox"),
        (lambda coco: coco["annotations"][0].update(bbox=[1, 2, 3, float("inf")]), "annotations.*bbox|finite"),
        (lambda coco: coco.update(categories=[{"id": 1}]), "categories.*name"),
        (lambda coco: coco["images"][0].update(id=1), "has 2 images with the id 1"),
        (lambda coco: coco["categories"][2].update(id=3), "has 2 categories with the id 3"),
        (lambda coco: coco["images"][0].update(file_name="x/DJI_0001.jpg"), "DJI_0001.jpg: is meant by two images"),
    ],
    ids=[
        *("outside", "absolute", "size", "category", "image", "box", "infinite", "nameless"),
        *("doubled image", "doubled category", "doubled picture"),
    ],
)
def test_broken_annotations_are_refused(flights, tmp_path, change, problem):
    """A file of annotations leads to no file outside the folder, and each mistake is named."""
    (tmp_path / "secret.jpg").write_bytes(b"x")
    coco = as_coco(flights, "coco.json", images_in(flights))
    change(coco)
    (flights / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(DataError) as caught, imported(flights, tmp_path / "work", "photos"):
        pass
    assert any(re.search(problem, text) for text in caught.value.problems), caught.value.problems


def test_many_pictures_that_are_not_there_are_one_cause(flights, tmp_path):
    """Annotations of pictures that were left behind are three lines and a count."""
    coco = as_coco(flights, "coco.json", images_in(flights))
    for image in coco["images"][:9]:
        image["file_name"] = f"elsewhere/{image['id']}.jpg"
    (flights / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match="have 9 problems") as caught, imported(flights, tmp_path / "work", "photos"):
        pass
    assert [line.partition(" is ")[0] for line in caught.value.problems] == [
        *(f"coco.json: 'elsewhere/{number}.jpg'" for number in range(3)),
        "... and 6 more like these",
    ]


def test_a_box_at_the_edge_is_cut_and_a_crowd_left_out(flights, tmp_path, caplog):
    """A box that reaches beyond its picture by rounding is cut there; an annotation of a crowd is no object."""
    images = images_in(flights)
    coco = as_coco(flights, "coco.json", images)
    first = [entry for entry in coco["annotations"] if entry["image_id"] == 0]
    first[0]["bbox"] = [-0.7, -0.2, 20, 20]
    coco["annotations"].append({"image_id": 0, "category_id": 3, "bbox": [0, 0, PX, PX], "iscrowd": 1})
    coco["annotations"].append({"image_id": 1, "category_id": 3, "bbox": [5, 5, 0, 9]})
    (flights / "coco.json").write_text(json.dumps(coco))
    with imported(flights, tmp_path / "work", "photos") as found:
        (label,) = (found.folder / "labels").rglob("DJI_0000.txt")
    rows = [line.split() for line in label.read_text().splitlines()]
    assert [float(word) for word in rows[0][1:]] == pytest.approx(
        [19.3 / 2 / PX, 19.8 / 2 / PX, 19.3 / PX, 19.8 / PX], abs=1e-5
    )
    assert len(rows) == len({tuple(entry["bbox"]) for entry in first})
    assert "leaves out 1 annotation of crowds" in caplog.text
    assert "leaves out 1 box without width or height" in caplog.text


def test_a_picture_that_two_files_put_into_different_splits_is_refused(flights):
    """A picture of train and val would be trained on and measured."""
    images = images_in(flights)
    as_coco(flights, "train.json", images[:16])
    as_coco(flights, "val.json", images[15:])
    with pytest.raises(DataError) as caught:
        read_coco(flights, ["train.json", "val.json"], images)
    assert [*caught.value.problems] == [f"{images[15]}: is in train and, by val.json, in val; list it in one of them"]


def test_a_class_without_objects_keeps_its_number(flights):
    """Only the parent of all other classes is left out; a class that is called like its own parent is none."""
    images = images_in(flights)
    coco = as_coco(flights, "coco.json", images)
    own = {"id": 5, "name": "lion", "supercategory": "lion"}
    for categories, names in (
        ([*coco["categories"], own], ["animals", "a", "lion", "b"]),
        ([*coco["categories"], own | {"supercategory": "animals"}], ["a", "lion", "b"]),
    ):
        (flights / "coco.json").write_text(json.dumps(coco | {"categories": categories}))
        assert read_coco(flights, ["coco.json"], images).names == names


def test_names_of_a_mac_and_a_mark_of_windows_are_understood(flights):
    """Macs take the letters of names apart, and programs of Windows begin a file with a byte order mark."""
    images = images_in(flights)
    coco = as_coco(flights, "coco.json", images)
    for image in coco["images"]:
        image["file_name"] = image["file_name"].replace("DJI", "Z\u00fcrich")
    apart = [image.replace("DJI", "Zu\u0308rich") for image in images]
    for image, name in zip(images, apart, strict=True):
        (flights / image).rename(flights / name)
    (flights / "coco.json").write_text(json.dumps(coco), encoding="utf-8-sig")
    assert list(read_coco(flights, ["coco.json"], apart).pictures) == apart


def entry(name, data=b"x", mode=0o100644, flags=0):
    """Return an entry of an archive and its bytes."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info, data, flags


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([entry("../out.txt")], "leads out of the folder"),
        ([entry("/etc/out.txt")], "leads out of the folder"),
        ([entry("a\\..\\..\\out.txt")], "leads out of the folder"),
        ([entry("link", b"/etc/passwd", 0o120777)], "is a link or a device"),
        ([entry("a"), entry("a/b")], "is a file and a folder"),
        ([entry("a"), entry("a")], "more than once"),
        ([entry("folder\\"), entry("a"), entry("a")], "1 names are there more than once"),
        ([entry("a", b"0" * 200_000_000)], "is no archive of pictures"),
    ],
    ids=["above", "absolute", "backslash", "link", "both", "twice", "windows", "bomb"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_archive_is_refused_before_anything_is_written(tmp_path, entries, problem):
    """An archive that would write outside its folder, make a link, or fill the disk is refused by the name in it."""
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data, _ in entries:
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    with pytest.raises(DataError) as caught, imported(tmp_path / "bad.zip", tmp_path / "work", "bad"):
        pass
    assert problem in " ".join([str(caught.value), *caught.value.problems])
    left = [path.name for path in (tmp_path / "work").rglob("*") if path.is_file() and path.name != ".lock"]
    assert left == []


@pytest.mark.parametrize("damage", ["cut", "text", "deflate", "lzma", "bzip2", "name"])
def test_a_damaged_archive_is_refused(flights, tmp_path, damage):
    """An archive that was cut in its download, is none, or has wrong bytes ends with what to do."""
    archive = zipped(flights, tmp_path / "photos.zip")
    kind = {"lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}.get(damage, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(archive, "a", kind) as opened:
        opened.writestr("ü.txt", "words " * 99)
    data, name = archive.read_bytes(), "ü.txt".encode()
    start = data.index(name) + len(name) + 4 * (damage == "lzma")
    archive.write_bytes(
        {
            "cut": data[:-300],
            "text": b"<html>",
            "name": data.replace(name, b"\xff\xff.txt"),
        }.get(damage, data[:start] + b"\xff" * 9 + data[start + 9 :])
    )
    with (
        pytest.raises(DataError, match=r"photos\.zip: .*download it again"),
        imported(archive, tmp_path / "work", "photos"),
    ):
        pass


@pytest.mark.parametrize(("name", "error"), [("photos/a.jpg", DataError), ("work/imports/a.jpg", MachineError)])
def test_what_cannot_be_used_is_blamed_by_its_place(flights, tmp_path, name, error):
    """A file of the user's that cannot be read is a fault of the data, and one of the work folder is the machine's."""
    with pytest.raises(error, match=name), imported(flights, tmp_path / "work", "photos"):
        raise PermissionError(13, "Permission denied", str(tmp_path / name))


def test_an_archive_is_unpacked_once(flights, tmp_path):
    """The same archive is not unpacked again, and a newer one in its place is."""
    archive = zipped(flights, tmp_path / "photos.zip")
    for kept in (True, False):
        with imported(archive, tmp_path / "work", "photos") as found:
            (picture,) = found.folder.rglob("DJI_0000.jpg")
        before = picture.resolve().stat().st_ctime_ns
        if not kept:
            (flights / "classes.txt").write_text("animal\nbird\ncow\n")
            archive = zipped(flights, archive)
        with imported(archive, tmp_path / "work", "photos") as found:
            (picture,) = found.folder.rglob("DJI_0000.jpg")
            names = yaml.safe_load((found.folder / "data.yaml").read_text())["names"]
        assert (picture.resolve().stat().st_ctime_ns == before, len(names)) == (kept, 2 if kept else 3)


def test_a_link_that_leads_out_is_not_followed(flights, tmp_path):
    """What a link outside of the folder leads to is not pushed, unless that is asked for."""
    (tmp_path / "secret.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (flights / "labels/flight0/DJI_0000.txt").unlink()
    (flights / "labels/flight0/DJI_0000.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError) as caught, imported(flights, tmp_path / "work", "photos"):
        pass
    assert "leads out of the dataset" in caught.value.problems[0]
    with imported(flights, tmp_path / "work", "photos", follow_links=True) as found:
        assert found.is_staged


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("a.xml", "<annotation><object/></annotation>", "a.xml is Pascal VOC, .*choose YOLOv11 in Roboflow"),
        ("annotations.xml", "<annotations><version>", "CVAT for images, .*in CVAT choose Ultralytics YOLO Detection"),
        ("a.json", '{"shapes": [], "imagePath": "a.jpg"}', "Labelme's own, .*labelme2coco"),
        ("via.json", '{"_via_img_metadata": {}}', r"in VIA choose .*COCO format"),
        ("tasks.json", '[{"file_upload": "a.jpg"}]', "in Label Studio choose YOLO with Images"),
        ("_annotations.csv", "filename,width\n", "a table of boxes, .*choose YOLOv11 in Roboflow"),
        ("a.tfrecord", "x", "TFRecord"),
        ("labels.tar.gz", "x", "but the archive labels.tar.gz"),
        ("notes.md", "x", "no YOLO labels; export the dataset"),
    ],
)
def test_another_export_is_answered_with_what_to_choose(tmp_path, name, content, advice):
    """An export that is not read is recognised, and the message names the choice in that program."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (PX, PX)).save(folder / "a.jpg")
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=advice), imported(folder, tmp_path / "work", "photos"):
        pass


def test_labels_without_classes_and_a_path_without_anything_are_answered(flights, tmp_path):
    """Without names of classes, pictures, or a file at all, the message says what to do."""
    (flights / "classes.txt").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.7z").write_bytes(b"x")
    expected = {flights: "write them into classes.txt", tmp_path / "empty": "has no pictures"}
    expected |= {tmp_path / "none": "no such file or folder", tmp_path / "a.7z": "another kind than ZIP"}
    for source, advice in expected.items():
        with pytest.raises(DataError, match=advice), imported(source, tmp_path / "work", "photos"):
            pass


def test_pictures_apart_from_their_labels_lead_to_the_folder_above(flights, tmp_path):
    """Of a YOLO folder, its pictures alone are no dataset; the message names the folder to pass."""
    for source in (flights / "images", flights / "images" / "flight0"):
        said = re.escape(f"which are in {flights}/labels; pass {flights}")
        with pytest.raises(DataError, match=said), imported(source, tmp_path / "work", "photos"):
            pass


def test_a_problem_is_one_of_the_user_s_own_file(flights, tmp_path):
    """What a push finds in a folder of links names the file to correct, below what the user has passed."""
    label = flights / "labels/flight0/DJI_0000.txt"
    label.write_text("7 0.5 0.5 0.2 0.2\n")
    (flights / "images/flight0/DJI_0001.jpg").write_bytes(b"")
    store = FolderStore.create(str(tmp_path / "bucket"))
    for source in (flights, zipped(flights, tmp_path / "photos.zip")):
        with pytest.raises(DataError) as raised:
            push_source(store, source, "photos", tmp_path / "work")
        said = str(raised.value)
        assert said.startswith(f"{source}: 2 problems found")
        assert "\n  - labels/flight0/DJI_0000.txt:1: class 7 is not among the classes" in said
        assert "\n  - images/flight0/DJI_0001.jpg: is empty" in said


def test_two_imports_of_one_name_do_not_mix(flights, tmp_path):
    """While one process pushes a staged folder, another one does not change it."""
    with (
        imported(flights, tmp_path / "work", "photos"),
        pytest.raises(MachineError, match="another process"),
        imported(flights, tmp_path / "work", "photos"),
    ):
        pass


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/photos", "photos"), ("my flights.v2.zip", "my-flights.v2"), ("kenya/_coco.json", "kenya"), ("x/.hid", "hid")],
)
def test_a_dataset_is_called_as_its_folder(tmp_path, path, name):
    """The name of a dataset comes from the folder or archive, in letters that a bucket takes."""
    assert dataset_name(tmp_path / path) == name


def test_a_push_takes_any_form_and_makes_the_next_version(flights, tmp_path, capfd):
    """`job data push` of an archive is version 1, again the same one, and version 2 once it has changed."""
    bucket = tmp_path / "bucket"
    store = FolderStore.create(str(bucket))
    archive = zipped(flights, tmp_path / "photos.zip")
    args = ["data", "push", str(archive), "--bucket", str(bucket), "--workdir", str(tmp_path / "work")]
    for expected in ("version 1, 41 files, 41 of them sent", "version 1, 41 files, 0 of them sent"):
        assert main(args) == 0
        said = capfd.readouterr().out
        assert expected in said
        assert shlex.split(said[said.index("next ") :].replace("\\\n", " "))[2:] == [
            *("train", "--recipe", "base", "--dataset", "photos", "--bucket", str(bucket)),
        ]
    (flights / "labels/flight0/DJI_0000.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    zipped(flights, archive)
    assert main(args) == 0
    assert "version 2 (1 changed), 41 files, 1 of them sent" in capfd.readouterr().out
    assert read_version(store, "photos").number == 2
