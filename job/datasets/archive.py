"""Unpacking of a ZIP archive of a dataset, from any source.

Guarantees that no file lies outside the folder, that no link and no device is made, and that sizes are limited before
anything is written. Knows nothing of YOLO.
"""

import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job.errors import DataError, MachineError
from job.log import Progress
from job.storage.keys import is_key
from job.storage.workdir import translated_errors
from job.text import shortened

SUFFIX = ".zip"

OTHER_SUFFIXES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
"""Suffixes of archives that are not unpacked."""

MAX_ENTRIES = 2_000_000

MAX_RATIO = 200
"""Pictures shrink little and labels to a tenth; a small file that unpacks to terabytes is an attack."""

SMALL_BYTES = 100_000_000
"""Archives that unpack to less may shrink by any ratio."""

SPARE_BYTES = 1_000_000_000

NUM_SHOWN = 10

CHUNK_BYTES = 1 << 20

DAMAGES = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    EOFError,
    UnicodeDecodeError,
)
"""Errors that `zipfile` raises for an archive that it cannot read, besides `OSError` of ``bz2`` for damaged data:
`RuntimeError` for an encrypted entry, and a subclass of it for an unknown compression or version of the format.
"""

STAMP = ".unpacked"
"""Identity of the archive that was unpacked, written last."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder of the job's own, unless the same one is unpacked there.

    Raises:
        DataError: If it is damaged, encrypted or too large, or has names that lead out of the folder; with all of them.
        MachineError: If it does not fit on the disk.
    """
    with translated_errors(folder):
        status = archive.stat()
        stamp = f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
        if (folder / STAMP).is_file() and (folder / STAMP).read_text() == stamp:
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with _damage_explained(archive):
            opened = zipfile.ZipFile(archive)
        with opened:
            _write(archive, opened, _checked(archive, opened, folder), folder)
        (folder / STAMP).write_text(stamp)


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    """Raise `DataError` for whatever goes wrong while the archive is read; of what is written the disk is at fault."""
    try:
        yield
    except (*DAMAGES, OSError) as error:
        raise DataError(f"{archive}: is no ZIP archive that can be read, {error}; download it again") from error


def _chunks(archive: Path, opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of an entry, at most `file_size`, whose checksum is verified."""
    with _damage_explained(archive), opened.open(entry) as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def _write(archive: Path, opened: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    total, done = sum(entry.file_size for entry in entries.values()), 0
    with Progress("unpacking", total, "B") as progress:
        for name, entry in entries.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as written:
                for chunk in _chunks(archive, opened, entry):
                    written.write(chunk)
                    done += len(chunk)
                    progress.to(done)


def _checked(archive: Path, opened: zipfile.ZipFile, folder: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files of an archive by name, without hidden ones; all problems at once."""
    infos = [info for info in opened.infolist() if not _name(info).endswith("/") and not _is_hidden(_name(info))]
    if len(infos) > MAX_ENTRIES:
        raise DataError(f"{archive}: has {len(infos):,} files, and at most {MAX_ENTRIES:,} are unpacked; split it")
    entries = {_name(info): info for info in infos}
    if problems := list(_problems(entries, len(infos))):
        advice = "unpack it yourself, and pass the folder"
        raise DataError(f"{archive}: cannot be unpacked safely; {advice}", shortened(problems, NUM_SHOWN))
    size = sum(info.file_size for info in entries.values())
    if size > max(SMALL_BYTES, MAX_RATIO * archive.stat().st_size):
        what = f"{archive.stat().st_size / 1e6:.1f} MB would unpack to {size / 1e9:.1f} GB"
        raise DataError(f"{archive}: is no archive of pictures, {what}; unpack it yourself, and pass the folder")
    free = shutil.disk_usage(folder).free
    if size + SPARE_BYTES > free:
        need = f"it unpacks to {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        raise MachineError(f"{folder}: the disk is too full, {need}; free some space, or pass another --workdir")
    return entries


def _problems(entries: dict[str, zipfile.ZipInfo], num_files: int) -> Iterator[str]:
    folders = {"/".join(parts[:end]) for name in entries for parts in [name.split("/")] for end in range(1, len(parts))}
    for name, entry in entries.items():
        kind = entry.external_attr >> 28
        if not is_key(name):
            yield f"{name!r}: leads out of the folder, or is no name of a file"
        elif kind not in {0, 8}:  # S_IFMT of Unix: unknown, a regular file
            yield f"{name!r}: is a link or a device"
        elif name in folders:
            yield f"{name!r}: is a file and a folder"
        elif entry.flag_bits & 1:
            yield f"{name!r}: is encrypted"
    if (num_doubled := num_files - len(entries)) > 0:
        yield f"{num_doubled} names are there more than once"


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.replace("\\", "/")  # as some programs of Windows write it


def _is_hidden(name: str) -> bool:
    return any((part.startswith(".") and part not in {".", ".."}) or part == "__MACOSX" for part in name.split("/"))
