"""Augmentation in kept arrays makes the samples of Ultralytics' own, from the same draws."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from job.training.rng import start_streams

PX = 64

NUM_IMAGES = 6

NEVER = {
    **dict.fromkeys(("copy_paste", "cutmix", "degrees", "flipud", "mixup", "perspective", "shear", "translate"), 0.0),
    **dict.fromkeys(("bgr", "fliplr", "hsv_h", "hsv_s", "hsv_v", "mosaic", "scale"), 0.0),
    "copy_paste_mode": "flip",
}

OFTEN = NEVER | {
    "mosaic": 0.7,
    "degrees": 15.0,
    "scale": 0.7,
    "translate": 0.15,
    "flipud": 0.5,
    "fliplr": 0.5,
    "hsv_h": 0.1,
    "hsv_s": 0.8,
    "hsv_v": 0.5,
    "bgr": 0.5,
}

EXTREMES = {
    "to a fleck": NEVER | {"mosaic": 1.0, "degrees": 180.0, "scale": (1e-5, 1e-5), "translate": 1.0},
    "to nothing": NEVER | {"mosaic": 1.0, "scale": (0.0, 0.0)},
}
"""Mosaics shrunk until coordinates overflow, which OpenCV has as integers with five channels, or have no inverse."""

TRANSFORMS = {
    "mosaic alone": NEVER | {"mosaic": 1.0},
    "mosaic in all directions": NEVER
    | {"mosaic": 1.0, "degrees": 180.0, "scale": 0.9, "shear": 40.0, "translate": 0.5},
    "mosaic or nothing": NEVER | {"mosaic": 0.5, "scale": 0.9, "mixup": 0.3},
    "flips alone": NEVER | {"flipud": 0.5, "fliplr": 0.5},
    "colours alone": NEVER | {"hsv_h": 0.5, "hsv_s": 0.9, "hsv_v": 0.9},
    "hue alone": NEVER | {"hsv_h": 0.5},
    "order of channels alone": NEVER | {"bgr": 0.5},
    "many": OFTEN,
    "mixed": OFTEN | {"mixup": 0.5, "cutmix": 0.5},
    "pasted": OFTEN | {"copy_paste": 0.9},
    "pasted from others": OFTEN | {"copy_paste": 0.9, "copy_paste_mode": "mixup"},
    "in perspective": OFTEN | {"perspective": 0.001},
    "none": NEVER,
}


@pytest.fixture
def transforms(confined):
    """A function that returns the transforms of a training, stock or with kept arrays."""
    from ultralytics.data.augment import Format, v8_transforms  # noqa: PLC0415 -- Ultralytics is confined first

    from job.training.augmentation import keep_arrays  # noqa: PLC0415 -- imports Ultralytics

    def build(pictures, names, *, kept):
        options = SimpleNamespace(**names)
        built = v8_transforms(pictures, PX, options)
        built.append(Format(bbox_format="xywh", batch_idx=True, bgr=options.bgr))
        if kept:
            keep_arrays(built)
        return built

    return build


@pytest.fixture
def samples(transforms):
    """A function that makes samples with stock transforms, and the same samples with kept arrays."""

    def make(names, num_channels=3):
        pictures = Pictures(num_channels)
        for kept in (False, True):
            built = transforms(pictures, names, kept=kept)
            made = []
            for number in range(20):
                start_streams("test", number)
                made.append(built(pictures.get_image_and_label(number % NUM_IMAGES)))
            yield made

    return make


class Pictures:
    """What transforms ask of a dataset: pictures of several shapes, read-only, with outlines."""

    def __init__(self, num_channels):
        random = np.random.default_rng(0)
        shapes = random.integers(PX // 2, PX + 1, (NUM_IMAGES, 2))
        self.data, self.buffer, self.cache = {}, list(range(NUM_IMAGES)), None
        self.pixels = [random.integers(0, 256, (*shape, num_channels), dtype=np.uint8) for shape in shapes]
        for pixels in self.pixels:
            pixels.flags.writeable = False
        self.corners = random.uniform(0, 0.6, (NUM_IMAGES, 4, 2)).astype(np.float32)

    def __len__(self):
        return NUM_IMAGES

    def get_image_and_label(self, index):
        """Return a picture and its objects, which are squares."""
        from ultralytics.utils.instance import Instances  # noqa: PLC0415 -- Ultralytics is confined first

        corners = self.corners[index]
        outline = np.array([[0, 0], [0.3, 0], [0.3, 0.3], [0, 0.3]], np.float32)
        segments = np.repeat(corners[:, None] + outline, 250, axis=1)
        boxes = np.hstack([corners, corners + np.float32(0.3)])
        pixels = self.pixels[index]
        return {
            "im_file": str(index),
            "img": pixels,
            "cls": np.arange(4, dtype=np.float32)[:, None],
            "instances": Instances(boxes, segments, bbox_format="xyxy", normalized=True),
            "ori_shape": pixels.shape[:2],
            "resized_shape": pixels.shape[:2],
        }


@pytest.mark.parametrize("name", TRANSFORMS)
def test_kept_arrays_change_no_pixel_and_no_box(samples, name):
    """Samples with each augmentation and with all of them equal those of the stock transforms, to the last bit."""
    stock, kept = samples(TRANSFORMS[name])
    for theirs, ours in zip(stock, kept, strict=True):
        assert all(torch.equal(theirs[part], ours[part]) for part in ("img", "cls", "bboxes"))
        assert ours["img"].is_contiguous()
    assert len({sample["img"].numpy().tobytes() for sample in kept}) > NUM_IMAGES // 2


@pytest.mark.parametrize("num_rows", [1, 7, PX - 1])
def test_an_image_is_the_same_in_strips_of_any_height(samples, monkeypatch, num_rows):
    """Colours, flips and planes made of a few rows at once are those of the stock transforms, to the last bit."""
    from job.training import augmentation  # noqa: PLC0415 -- imports Ultralytics

    monkeypatch.setattr(augmentation, "STRIP_PX", num_rows * PX)
    stock, kept = samples(OFTEN)
    assert all(torch.equal(theirs["img"], ours["img"]) for theirs, ours in zip(stock, kept, strict=True))


@pytest.mark.parametrize("num_channels", [1, 4])
def test_images_of_other_channels_are_augmented_as_before(samples, num_channels):
    """Grey images and those of four channels get the pixels of the stock transforms."""
    stock, kept = samples(OFTEN, num_channels)
    assert all(torch.equal(theirs["img"], ours["img"]) for theirs, ours in zip(stock, kept, strict=True))


@pytest.mark.parametrize("num_channels", [3, 5])
@pytest.mark.parametrize("name", EXTREMES)
def test_a_mosaic_too_small_to_see_shows_nothing_of_the_one_before(samples, name, num_channels):
    """Where coordinates are too large to tell what is read, pixels are those of the stock transforms as well."""
    stock, kept = samples(EXTREMES[name], num_channels)
    assert all(torch.equal(theirs["img"], ours["img"]) for theirs, ours in zip(stock, kept, strict=True))


def test_of_a_mosaic_only_what_is_visible_is_pasted(transforms):
    """Of pictures enlarged tenfold a fiftieth of the canvas is pasted at most, and the rest is as it was before."""
    pictures = Pictures(num_channels=3)
    built = transforms(pictures, NEVER | {"mosaic": 1.0, "scale": (10.0, 10.0)}, kept=True)
    laid_on = built.transforms[0].transforms[0].canvas
    laid_on.pixels = np.zeros((2 * PX, 2 * PX, 3), np.uint8)
    built(pictures.get_image_and_label(0))
    assert 0 < laid_on.pixels.any(axis=2).mean() < 1 / 50


def test_a_mosaic_is_pasted_once(transforms):
    """What was pasted is forgotten: it neither covers copied objects nor keeps its pictures in memory."""
    pictures = Pictures(num_channels=3)
    built = transforms(pictures, NEVER | {"mosaic": 1.0}, kept=True)
    built(pictures.get_image_and_label(0))
    laid_on = built.transforms[0].transforms[0].canvas
    assert laid_on.pixels.any()
    laid_on.pixels.fill(0)
    laid_on.paste_all()
    assert not laid_on.pixels.any()


@pytest.mark.parametrize("share", [0.0, 0.015, 0.5, 1.0, 3.0])
def test_colours_are_those_of_the_tables(confined, share):
    """Each level becomes what its table says, also behind the last whole vector of a plane, whether that is computed or
    looked up.
    """
    import cv2  # noqa: PLC0415 -- after `confined`, as Ultralytics

    from job.training.augmentation import Recolouring  # noqa: PLC0415 -- imports Ultralytics, confined by now

    random, levels = np.random.default_rng(0), np.arange(256.0)
    planes = random.integers(0, [[[180]], [[256]], [[256]]], (3, 7, 333), np.uint8)
    computed = 0
    for hue, saturation, value in [
        *random.uniform(-share, share, (200, 3)),
        (1 / 180, 1.0, 0.5),
        (-1 / 180, -1.0, 0.2),
    ]:
        gains = saturation + 1, value + 1
        scaled = [np.clip(levels * gain, 0, 255) for gain in gains]
        tables = np.array([(levels + hue * 180) % 180, *scaled]).astype(np.uint8)
        colours, changed = Recolouring(tables, gains), planes.copy()
        colours.apply(list(changed), np.full(planes.shape[1:], 255, np.uint8))
        for plane, table, found in zip(planes, tables, changed, strict=True):
            assert np.array_equal(cv2.LUT(plane, table), found)
        computed += (colours._shift is not None) + sum(gain is not None for gain in colours._gains)
    assert computed > 300


@pytest.mark.parametrize(("product", "is_far_from_the_next"), [(200.9, True), (200.99988, False), (200.99999, False)])
def test_products_that_another_cpu_could_round_up_are_looked_up(confined, product, is_far_from_the_next):
    """A level that comes within the errors of 32-bit floats to the next one is left to the table."""
    from job.training.augmentation import _is_product  # noqa: PLC0415 -- imports Ultralytics, confined by now

    gain = product / 251  # a prime, so that no other level comes as close
    assert _is_product(gain, (np.arange(256.0) * gain).astype(np.uint8)) == is_far_from_the_next


def test_no_colour_has_a_hue_beyond_the_circle(confined):
    """Of all colours none has a hue from 180 on, for which a shift would not be what a table is."""
    import cv2  # noqa: PLC0415 -- after `confined`, as Ultralytics

    from job.training.augmentation import NUM_HUES  # noqa: PLC0415 -- imports Ultralytics, confined by now

    pairs = np.stack(np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2), axis=-1)
    for blue in range(256):
        colours = np.concatenate([np.full((256, 256, 1), blue, np.uint8), pairs], axis=-1)
        assert cv2.cvtColor(colours, cv2.COLOR_BGR2HSV)[..., 0].max() < NUM_HUES
