"""Untrusted checkpoints: of other tasks, damaged, larger than they seem, or with code."""

import zipfile
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from ultralytics.nn import tasks

NAMES = {0: "animal", 1: "bird"}

MODELS = {"detect": "yolo11n.yaml", "segment": "yolo11n-seg.yaml", "obb": "yolo11n-obb.yaml"} | {
    "pose": "yolo11n-pose.yaml",
    "classify": "yolo11n-cls.yaml",
}

CLASSES = {
    "detect": tasks.DetectionModel,
    "segment": tasks.SegmentationModel,
    "obb": tasks.OBBModel,
    "pose": tasks.PoseModel,
    "classify": tasks.ClassificationModel,
}


def detector(task="detect"):
    """Return a model from scratch for the classes of the tiny dataset."""
    model = CLASSES[task](MODELS[task], nc=len(NAMES), verbose=False)
    model.names = dict(NAMES)
    model.args = {"task": task}
    return model


def save(path, model, **entries):
    """Write a model as Ultralytics does."""
    torch.save({"epoch": -1, "model": deepcopy(model).half(), "ema": None, "optimizer": None, **entries}, path)
    return path


def leaves_a_mark(mark):
    """Return the description of an activation that runs something when it is evaluated."""
    return f"(open({str(mark)!r}, 'w').close(), torch.nn.SiLU())[1]"


def poison(path, mark):
    """Change a checkpoint in place so that building its model anew leaves a mark."""
    checkpoint = torch.load(path, weights_only=False)
    for name in ("model", "ema"):
        if checkpoint.get(name) is not None:
            checkpoint[name].yaml["activation"] = leaves_a_mark(mark)
    torch.save(checkpoint, path)


def hollow(path, num_elements):
    """Write a small file whose model has a tensor of many elements, all of them the same one."""
    model = detector()
    layer = model.model[0].conv
    layer.weight = nn.Parameter(torch.zeros(1).as_strided((num_elements,), (0,)))
    torch.save({"model": model}, path)
    return path


def compressed(path):
    """Write a checkpoint in which half a gigabyte of zeros takes half a megabyte."""
    inner = save(path.with_suffix(".plain"), detector())
    with zipfile.ZipFile(inner) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
        with target.open("archive/data/zeros", "w") as opened:
            for _ in range(32):
                opened.write(bytes(1 << 24))
    return path


def torchscript(path):
    """Write what an exported program consists of."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__/torch/nn/modules/conv.py", "version"):
            archive.writestr(f"archive/{name}", b"")
    return path


def pickled(path, data):
    """Write an archive with the given pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return Path(path)
