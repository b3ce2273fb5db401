"""Images as training reads them."""

import io
import struct
import zlib
from importlib.metadata import version

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from job.datasets import image
from job.datasets.image import check_image, decode, load_image
from job.errors import DataError

RNG = np.random.default_rng(0)

PIXELS = RNG.integers(0, 255, (24, 32, 3), dtype=np.uint8)


def encoded(pixels, kind, **options):
    """Return an image file of some format."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind, **options)
    return written.getvalue()


def by_opencv(suffix, pixels, *options):
    """Return an image file as OpenCV writes it."""
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def pages(*sizes):
    """Return a TIFF of several pages."""
    written = io.BytesIO()
    first, *others = (Image.new("L", size, 7) for size in sizes)
    first.save(written, "TIFF", save_all=True, append_images=others)
    return written.getvalue()


def png_of_size(width, height):
    """Return the beginning of a PNG that says how large it is, and no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def turned(orientation):
    """Return an EXIF block with an orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "AVIF": "avif", "TIFF": "tif"}
"""Formats with EXIF, and their suffixes."""

READ = {
    "a JPEG": ("a.jpg", encoded(PIXELS, "JPEG")),
    "a JPEG with bytes behind it": ("a.jpg", encoded(PIXELS, "JPEG") + bytes(64)),
    "a turned JPEG": (
        "a.jpeg",
        encoded(PIXELS, "JPEG", exif=b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
    ),
    "a PNG": ("a.PNG", encoded(PIXELS, "PNG")),
    "a grey PNG": ("a.png", encoded(PIXELS[..., 0], "PNG")),
    "a PNG with alpha": ("a.png", encoded(np.dstack([PIXELS, PIXELS[..., 0]]), "PNG")),
    "a PNG of 16 bits": ("a.png", by_opencv(".png", PIXELS.astype(np.uint16) << 8)),
    "a TIFF": ("a.tif", encoded(PIXELS, "TIFF")),
    "a TIFF of 4 bands": ("a.tiff", by_opencv(".tiff", np.dstack([PIXELS, PIXELS[..., 0]]))),
    "a TIFF of 16 bits": ("a.tif", by_opencv(".tiff", PIXELS.astype(np.uint16) << 8)),
    "a TIFF of grey pages": ("a.tif", pages((32, 24), (32, 24))),
    "a WebP": ("a.webp", encoded(PIXELS, "WEBP")),
    "a BMP": ("a.bmp", encoded(PIXELS, "BMP")),
    "a JPEG 2000": ("a.jp2", encoded(PIXELS, "JPEG2000")),
    "an AVIF": ("a.avif", encoded(PIXELS, "AVIF")),
    "an AVIF called JPEG": ("a.jpg", encoded(PIXELS, "AVIF")),
}

REFUSED = {
    "a TIFF of 32-bit numbers": ("a.tif", by_opencv(".tiff", PIXELS[..., 0].astype(np.float32)), "unreadable"),
    "three bands of 32 bits": ("a.tif", by_opencv(".tiff", PIXELS.astype(np.float32)), "unreadable"),
    "a GIF": ("a.jpg", encoded(PIXELS[..., 0], "GIF"), "unreadable"),
    "PostScript": ("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n", "unreadable"),
    "half a JPEG": ("a.jpg", encoded(PIXELS, "JPEG")[:900], "unreadable"),
    "a JPEG without its end": ("a.jpg", encoded(PIXELS, "JPEG")[:-2], "unreadable"),
    "half a PNG": ("a.png", encoded(PIXELS, "PNG")[:900], "unreadable"),
    "half a TIFF": ("a.tif", encoded(PIXELS, "TIFF")[:900], "unreadable"),
    "half a WebP": ("a.webp", encoded(PIXELS, "WEBP")[:300], "unreadable"),
    "a PNG of 10 gigapixels": ("a.png", png_of_size(100_000, 100_000), "large"),
    "a PNG of 4 billion times 4 billion": ("a.png", png_of_size(2**31 - 1, 2**31 - 1), "large"),
    "a TIFF of very many pages": ("a.tif", pages(*[(16, 16)] * 150), "large"),
    "9 px": ("a.png", encoded(PIXELS[:9], "PNG"), "small"),
}


@pytest.mark.parametrize(("name", "data"), READ.values(), ids=READ)
@pytest.mark.parametrize("num_channels", [1, 3])
def test_pixels_are_those_of_training(tmp_path, name, data, num_channels):
    """The check decodes each format to the pixels that Ultralytics' own reader gives."""
    from ultralytics.utils.patches import imread  # noqa: PLC0415 -- imports torch

    (tmp_path / name).write_bytes(data)
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}[num_channels]
    theirs = imread(tmp_path / name, flags)
    assert np.array_equal(decode(data, name, num_channels), theirs)
    assert check_image(data, name, num_channels).problems == ()


TURNED = {
    f"{kind} turned by {orientation}": (f"a.{suffix}", encoded(PIXELS, kind, exif=turned(orientation)))
    for kind, suffix in FORMATS.items()
    for orientation in (1, 3, 6, 8, 9)
}


@pytest.mark.parametrize(("name", "data"), (READ | TURNED).values(), ids=READ | TURNED)
def test_heights_and_widths_are_those_of_training(tmp_path, name, data):
    """The shape of each image is that of Ultralytics' own check, by which it scales boxes."""
    from ultralytics.data import utils  # noqa: PLC0415 -- imports torch

    (tmp_path / name).write_bytes(data)
    assert check_image(data, name).shape == utils.check_image(str(tmp_path / name))[1]


def test_a_shape_that_the_decoder_decides_is_not_taken_from_a_record(monkeypatch):
    """A turned WebP that another machine has decoded is decoded once more, since its EXIF does not say its shape."""
    name, data = TURNED["WEBP turned by 6"]
    decoded = []
    monkeypatch.setattr(image, "decode", lambda *words, **options: decoded.append(words) or decode(*words, **options))
    shape = check_image(data, name, known_hash="0" * 128).shape
    assert decoded
    assert shape == decode(data, name).shape[:2]


def test_pages_can_be_the_channels(tmp_path):
    """A TIFF of five grey pages is a picture of five channels where training asks for five, as in Ultralytics."""
    from ultralytics.utils.patches import imread  # noqa: PLC0415 -- imports torch

    data = pages(*[(32, 24)] * 5)
    (tmp_path / "a.tif").write_bytes(data)
    assert np.array_equal(decode(data, "a.tif", 5), imread(tmp_path / "a.tif", cv2.IMREAD_UNCHANGED))
    assert check_image(data, "a.tif", 5).problems == ()
    assert "has 5 channels of uint8, and training takes 4" in check_image(data, "a.tif", 4).problems[0][2]


@pytest.mark.parametrize(("name", "data", "kind"), REFUSED.values(), ids=REFUSED)
def test_what_training_cannot_read_is_refused(name, data, kind):
    """A picture that Ultralytics would drop, or stumble over later, is refused; a huge one before it is decoded."""
    assert [problem[1] for problem in check_image(data, name).problems] == [kind]


def test_pillow_opens_no_format_that_training_does_not_read(monkeypatch):
    """None of Pillow's other readers, of which some run programs, sees a byte of a picture."""
    asked = []
    opener = image.open_image
    monkeypatch.setattr(image, "open_image", lambda data, **options: asked.append(options) or opener(data, **options))
    check_image(encoded(PIXELS, "PNG"), "a.png")
    load_image(encoded(PIXELS, "PNG"))
    assert [options["formats"] for options in asked] == [image.FORMATS] * 2
    assert {"EPS", "GIF", "PSD", "FLI", "WMF"}.isdisjoint(image.FORMATS)
    with pytest.raises(DataError, match="cannot be decoded"):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    """While a large picture is decoded no other large one is."""
    monkeypatch.setattr(image, "LARGE_PIXELS", 100)
    held = []
    monkeypatch.setattr(image, "decode", lambda *_, **__: held.append(image._one_large.locked()) or PIXELS)
    check_image(encoded(PIXELS, "PNG"), "a.png")
    monkeypatch.setattr(image, "LARGE_PIXELS", 10**9)
    check_image(encoded(PIXELS, "PNG"), "a.png")
    assert held == [True, False]


def test_the_decoder_that_is_followed_is_the_one_of_training():
    """What is recorded of images by their decoder's versions is void with another Ultralytics, OpenCV or Pillow."""
    found = f"pillow-{version('pillow')}_opencv-{cv2.__version__}_ultralytics-{version('ultralytics')}"
    assert found == image.DECODER
