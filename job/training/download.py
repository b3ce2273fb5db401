"""Download of published weights from Ultralytics' releases.

Guarantees that a file of a known digest is verified before it is stored in the bucket.
"""

import hashlib
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from job.errors import WeightsError, message_of

log = logging.getLogger(__name__)

PINNED = {
    "yolo11n.pt": "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1",
    "yolo11s.pt": "85a76fe86dd8afe384648546b56a7a78580c7cb7b404fc595f97969322d502d5",
    "yolo11m.pt": "d5ffc1a674953a08e11a8d21e022781b1b23a19b730afc309290bd9fb5305b95",
}
"""SHA-256 of the files of Ultralytics' releases."""


def download_published(target: Path) -> None:
    """Download a published file such as ``yolo11s.pt`` to a path of that name, or raise `WeightsError`."""
    from ultralytics.utils.downloads import attempt_download_asset  # noqa: PLC0415 -- heavy

    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        partial = Path(folder) / target.name
        try:
            attempt_download_asset(partial)
        except Exception as error:  # any error of the downloader has the same remedy
            raise _unreachable(target, message_of(error)) from error
        if not partial.is_file():
            raise _unreachable(target, "the download left no file")
        _require_published(partial)
        partial.replace(target)


def _require_published(path: Path) -> None:
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    expected = PINNED.get(path.name)
    if expected is None:
        log.warning(
            "weights/%s: its digest is not known here, so its origin is not verified; stored with SHA-256 %s",
            *(path.name, digest),
        )
    elif digest != expected:
        raise WeightsError(
            f"weights/{path.name}: what was downloaded is not the published file, its SHA-256 is {digest[:12]} and not "
            f"{expected[:12]}; nothing was stored, check the network path to github.com"
        )


def _unreachable(target: Path, detail: str) -> WeightsError:
    return WeightsError(
        f"weights/{target.name}: is not in the bucket and could not be downloaded, {detail}; put the file there, or "
        "pass --model NAME.yaml to train from scratch"
    )
