"""Pictures that are searched for objects: every kind is read, and a damaged one has a reason."""

import pytest

from job.datasets.image import read_picture
from job.errors import DataError
from tests.support.predicting import add_odd_pictures, make_flight


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of pictures of every kind, and whether each can be read."""
    folder = make_flight(tmp_path_factory.mktemp("odd") / "flight", 1)
    return folder, add_odd_pictures(folder)


def test_every_kind_is_read_and_damaged_ones_have_a_reason(odd):
    """CMYK, rotated, grey, transparent and 16-bit files are pixels in colour; one that is cut short is none."""
    folder, readable = odd
    for name, can_be_read in readable.items():
        if name == "odd/gone.jpg":
            continue
        data = (folder / name).read_bytes()
        if can_be_read:
            pixels = read_picture(data, name)
            assert (pixels.dtype, pixels.shape[2]) == ("uint8", 3), name
        else:
            with pytest.raises(DataError) as raised:
                read_picture(data, name)
            assert str(raised.value).split()[0] in {"is", "has", "cannot"}, name


def test_a_rotated_picture_is_upright(odd):
    """The pixels of a file that its EXIF turns are those that a person sees."""
    folder, _ = odd
    assert read_picture((folder / "odd/rotated.jpg").read_bytes(), "rotated.jpg").shape[:2] == (64, 40)


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(odd):
    """A whole JPEG with bytes behind its end, as cameras write them, is read."""
    folder, _ = odd
    whole = (folder / "odd/rotated.jpg").read_bytes()
    assert (read_picture(whole + b"tail", "x.jpg") == read_picture(whole, "x.jpg")).all()


def test_a_picture_of_another_number_of_channels_is_refused(odd):
    """A model of ten channels takes no picture of three."""
    folder, _ = odd
    with pytest.raises(DataError, match="has 3 channels of uint8, and the model takes 10"):
        read_picture((folder / "odd/rotated.jpg").read_bytes(), "x.jpg", 10)
