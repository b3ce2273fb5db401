"""Decoding gives the pixels of Ultralytics' own reader, whatever the file."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

LANDSCAPE = np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)

SMOOTH = cv2.resize(LANDSCAPE, (210, 131), interpolation=cv2.INTER_CUBIC)

SAMPLINGS = {"4:4:4": 0x111111, "4:2:2": 0x211111, "4:4:0": 0x121111, "4:2:0": 0x221111, "4:1:1": 0x411111}


def jpeg(sampling="4:2:0", quality=90, pixels=SMOOTH, **flags):
    """Return a JPEG as OpenCV writes it."""
    chosen = {"SAMPLING_FACTOR": SAMPLINGS[sampling], "QUALITY": quality} | flags
    words = [word for name, value in chosen.items() for word in (getattr(cv2, f"IMWRITE_JPEG_{name}"), value)]
    return cv2.imencode(".jpg", pixels, words)[1].tobytes()


def saved(mode="RGB", form="JPEG", **options):
    """Return an image as Pillow writes it."""
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def turned(orientation):
    """Return a JPEG with EXIF; without a number, with EXIF that does not tell how the picture is turned."""
    exif = Image.Exif()
    exif[Base.Make] = "a drone"
    if orientation is not None:
        exif[Base.Orientation] = orientation
    return saved(exif=exif)


def damaged(data, number):
    """Return a file with bytes that are changed, missing or too many, by a number."""
    random = np.random.default_rng(number)
    first, size = int(random.integers(2, len(data) - 40)), int(random.integers(1, 40))
    return [
        data[:first] + random.bytes(size) + data[first + size :],
        data[:first] + data[first + size :],
        data[:first] + random.bytes(size) + data[first:],
        data[:first],
    ][number % 4]


FAST = {
    **{f"{sampling}, quality {quality}": jpeg(sampling, quality) for sampling in SAMPLINGS for quality in (5, 75, 100)},
    **{f"{sampling}, progressive": jpeg(sampling, PROGRESSIVE=1) for sampling in SAMPLINGS},
    **{f"{h} x {w}": jpeg(pixels=SMOOTH[:h, :w]) for h, w in ((1, 1), (7, 5), (8, 8), (16, 17), (33, 31))},
    "restart markers": jpeg(RST_INTERVAL=2),
    "optimised": jpeg(OPTIMIZE=1),
    "upright": turned(1),
    "colours as RGB": saved(keep_rgb=True),
    "profile and comment": saved(icc_profile=bytes(3000), comment=b"a comment", dpi=(300, 300)),
    "bytes behind the end": jpeg() + b"of a camera",
    "two pictures": jpeg() + jpeg("4:4:4"),
}


def typed(kind, end):
    """Return a JPEG whose EXIF has an orientation of another type, with the end of its value from offset 6 on."""
    ahead = b"II*\0" + struct.pack("<I", 16) + end + b"\0\0" + struct.pack("<H", 1)
    return saved(exif=b"Exif\0\0" + ahead + struct.pack("<HHII", Base.Orientation, kind, 1, 6) + bytes(4))


def odd_exif():
    """Return a JPEG whose EXIF segment does not begin as one, and says that it is turned."""
    entry = struct.pack("<HHIHH", Base.Orientation, 3, 1, 6, 0)
    tags = b"Exif\0\1II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    return jpeg()[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(tags)) + tags + jpeg()[2:]


SLOW = {
    **{f"turned by {orientation}": turned(orientation) for orientation in (0, 2, 3, 4, 5, 6, 7, 8, 9)},
    "not said how it is turned": turned(None),
    "EXIF that does not begin as such": odd_exif(),
    "upright as a fraction, turned by 6 to OpenCV": typed(5, b"\1\0\0\0\1\0"),
    "upright as a double, turned by 6 to OpenCV": typed(12, b"\0\0\0\0\xf0\x3f"),
    "grey": saved("L"),
    "CMYK": saved("CMYK"),
    "cut off": jpeg()[:-20],
    "cut off in the middle": jpeg()[:2000],
    "a header alone": jpeg()[:300],
    **{form: saved(form=form) for form in ("PNG", "WEBP", "TIFF", "BMP", "GIF")},
    "16 bits": cv2.imencode(".png", SMOOTH.astype(np.uint16) << 8)[1].tobytes(),
    "text": b"no image",
    "nothing": b"",
}


@pytest.fixture
def read(confined, tmp_path):
    """A function that writes a file, and returns what Ultralytics reads from it and what the decoder does."""
    from ultralytics.utils import patches  # noqa: PLC0415 -- Ultralytics is confined first

    from job.training.decoding import imread  # noqa: PLC0415 -- imports Ultralytics

    def both(data, name="a.jpg", flags=cv2.IMREAD_COLOR):
        path = tmp_path / name
        path.write_bytes(data)
        return patches.imread(path, flags), imread(path, flags)

    return both


@pytest.fixture
def num_fast(monkeypatch, read):
    """A list that grows by each picture that simplejpeg decodes."""
    from job.training import decoding  # noqa: PLC0415 -- imports Ultralytics

    simplejpeg, decoded = pytest.importorskip("simplejpeg"), []

    class Counting:
        @staticmethod
        def decode_jpeg(*args, **options):
            pixels = simplejpeg.decode_jpeg(*args, **options)
            decoded.append(pixels)
            return pixels

    monkeypatch.setattr(decoding, "simplejpeg", Counting)
    return decoded


def same(one, other):
    """Whether two readers saw the same."""
    return (one is None and other is None) or (one is not None and other is not None and np.array_equal(one, other))


@pytest.mark.parametrize("kind", FAST)
def test_a_jpeg_of_a_camera_is_decoded_fast_with_the_same_pixels(read, num_fast, kind):
    """Every kind of upright colour JPEG is left to the faster decoder, and has the pixels that Ultralytics reads."""
    theirs, ours = read(FAST[kind], "a.JPG")
    assert theirs is not None
    assert same(theirs, ours)
    assert len(num_fast) == 1


@pytest.mark.parametrize("kind", SLOW)
def test_any_other_file_is_left_to_ultralytics(read, num_fast, kind):
    """A JPEG that is turned, grey, in CMYK or cut off, and a file that is none, are what Ultralytics makes of them."""
    assert same(*read(SLOW[kind]))
    assert num_fast == []


def test_a_damaged_jpeg_has_the_pixels_that_ultralytics_reads(read):
    """Files whose bytes are changed, missing or too many, header or not, are read alike."""
    sources = [turned(1), jpeg("4:4:4", PROGRESSIVE=1), jpeg(RST_INTERVAL=2)]
    for number in range(120):
        assert same(*read(damaged(sources[number % 3], number))), number


def test_pictures_are_decoded_into_one_buffer(read, num_fast):
    """Within a block, JPEGs of any order of sizes are read and decoded in the same memory, other files in their own."""
    from job.training.decoding import DecodingBuffers, decoded_into  # noqa: PLC0415 -- once Ultralytics is confined

    buffers = DecodingBuffers()
    pictures = [jpeg(pixels=SMOOTH[:h, :w]) for h, w in ((33, 31), (131, 210), (8, 8), (131, 210), (1, 1))]
    for data in pictures:
        theirs, outside = read(data)
        with decoded_into(buffers):
            _, ours = read(data)
        assert same(theirs, ours)
        assert buffers.pixels.holds(ours)
        assert not buffers.pixels.holds(outside)
    assert len(num_fast) == 2 * len(pictures)
    assert buffers.files.sized(0).size == max(map(len, pictures))
    with decoded_into(buffers):
        theirs, ours = read(saved(form="PNG"), "a.png")
    assert same(theirs, ours)
    assert not buffers.pixels.holds(ours)


def test_damaged_jpegs_do_no_harm_to_a_buffer(read):
    """A JPEG whose header and pixels disagree is read as before, and the next one after it."""
    from job.training.decoding import DecodingBuffers, decoded_into  # noqa: PLC0415 -- once Ultralytics is confined

    buffers, data = DecodingBuffers(), jpeg()
    with decoded_into(buffers):
        for number in range(200):
            assert same(*read(damaged(data, number))), number
            assert same(*read(data))


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a"])
def test_the_name_of_a_file_decides_as_for_ultralytics(read, num_fast, name):
    """A JPEG under another name is left to Ultralytics, which goes by the suffix."""
    assert same(*read(jpeg(), name))
    assert num_fast == []


@pytest.mark.parametrize("flags", [cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED])
def test_pixels_of_other_channels_are_left_to_ultralytics(read, num_fast, flags):
    """Grey pixels, and those of all channels, are what Ultralytics reads."""
    assert same(*read(jpeg(), flags=flags))
    assert num_fast == []


def test_without_simplejpeg_ultralytics_reads_every_file(read, monkeypatch):
    """On a machine that lacks the faster decoder a JPEG has the same pixels."""
    from job.training import decoding  # noqa: PLC0415 -- imports Ultralytics

    monkeypatch.setattr(decoding, "simplejpeg", None)
    assert same(*read(jpeg()))


def test_a_file_that_is_gone_is_none(confined, tmp_path):
    """A missing file has no pixels."""
    from job.training.decoding import imread  # noqa: PLC0415 -- imports Ultralytics

    assert imread(tmp_path / "a.jpg") is None


def test_both_splits_of_a_training_are_decoded_fast(confined):
    """Ultralytics' datasets read images by this decoder once it is confined."""
    from ultralytics.data import base  # noqa: PLC0415 -- Ultralytics is confined first

    from job.training.decoding import imread  # noqa: PLC0415 -- imports Ultralytics

    assert base.imread is imread
