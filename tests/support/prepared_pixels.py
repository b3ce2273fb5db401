"""Prepared pixels of a dataset that no session has pulled."""

from job.storage.checksums import sha256_of
from job.training.prepared_pixels import PixelFolder


def pixel_folder(folder, data):
    """Return a folder of prepared pixels for the images of a dataset."""
    images = [path.resolve() for path in (data / "images").rglob("*.jpg")]
    return PixelFolder(folder, {str(image): sha256_of(image) for image in images})


def fill(dataset):
    """Prepare the pixels of all images of a training split."""
    for number in range(len(dataset)):
        dataset.load_image(number)
        if dataset.prepared._writing is not None:
            dataset.prepared._writing.join()
        assert dataset.prepared.load(number) is not None, "there is no room"
    dataset.recent.clear()
