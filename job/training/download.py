"""Published weights from Ultralytics' own releases."""

import os
from pathlib import Path

from job.errors import WeightsError


def download_published(target: Path) -> None:
    """Download a published file such as ``yolo11s.pt`` to a path of that name.

    Raises:
        WeightsError: If there is no such file or no way to reach it.
    """
    from ultralytics.utils.downloads import attempt_download_asset  # noqa: PLC0415 -- heavy

    partial = target.with_name(f".download-{os.getpid()}") / target.name
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        attempt_download_asset(partial)
    except Exception as error:  # whatever the downloader raises, the person needs the same advice
        raise _unreachable(target, " ".join(str(error).split())) from error
    if not partial.is_file():
        raise _unreachable(target, "the download left no file")
    partial.replace(target)
    partial.parent.rmdir()


def _unreachable(target: Path, detail: str) -> WeightsError:
    return WeightsError(
        f"weights/{target.name}: is not in the bucket and could not be downloaded, {detail}; put the file there, or "
        "pass --model NAME.yaml to train from scratch"
    )
