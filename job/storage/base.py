"""Base class of the stores: verified fetches with retries, and transfers of many objects in parallel.

Guarantees that a file appears only after its last byte was verified, and that an incomplete fetch is retried. Knows
nothing of a backend.
"""

import io
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar

from job.errors import ObjectNotFoundError, OversizedObjectError, StoreError
from job.storage.atomic_file import write_atomically
from job.storage.checksums import read_chunks
from job.storage.object_store import RECORD_BYTES, OnDone, Store, StoredObject
from job.storage.retry import RetryableError, retried

if TYPE_CHECKING:
    from typing_extensions import Buffer

Result = TypeVar("Result")


class BaseStore(Store):
    """`get`, `read`, `get_many` and `put_many`, built upon `put`, `stat` and `_stream`."""

    num_downloads: ClassVar[int]
    """Number of objects fetched at once."""

    num_uploads: ClassVar[int]
    """Number of files stored at once."""

    @property
    def deadline_s(self) -> float:
        """Seconds for which transient failures are retried."""
        return 0.0  # errors of a disk are not transient

    @abstractmethod
    def _stream(self, stored: StoredObject) -> Iterator[bytes]:
        """Yield the bytes of one version of an object.

        Raises:
            ObjectNotFoundError: Before the first byte, if there is another version, or none.
            RetryableError: If they do not arrive whole.
            CorruptObjectError: After the last byte, if the stored bytes do not match the checksum.
        """

    def get(self, key: str, target: Path) -> StoredObject:
        """Fetch into a file; see `Store.get`."""
        return self._fetch_newest(key, lambda chunks: write_atomically(target, chunks))[0]

    def read(self, key: str, most_bytes: int = RECORD_BYTES) -> bytes:
        """Return the bytes of a small object; see `Store.read`."""

        def collect(chunks: Iterator[bytes]) -> bytes:
            collected = BoundedBuffer(f"{self.uri}/{key}", most_bytes)
            for chunk in chunks:
                collected.write(chunk)
            return collected.getvalue()

        return self._fetch_newest(key, collect)[1]

    def get_many(self, objects: Sequence[tuple[StoredObject, Path]], on_done: OnDone = None) -> None:
        """Fetch many objects in parallel; see `Store.get_many`."""

        def get(stored: StoredObject, target: Path) -> StoredObject:
            self._fetch(stored, lambda chunks: write_atomically(target, chunks))
            return stored

        _in_parallel(get, objects, self.num_downloads, on_done)

    def put_many(self, files: Iterable[tuple[Path, str]], on_done: OnDone = None) -> None:
        """Store many files in parallel; see `Store.put_many`."""
        _in_parallel(lambda source, key: self.put(key, source), files, self.num_uploads, on_done)

    def _fetch_newest(self, key: str, consume: Callable[[Iterator[bytes]], Result]) -> tuple[StoredObject, Result]:
        stored = self.stat(key)
        while True:
            try:
                return stored, self._fetch(stored, consume)
            except ObjectNotFoundError:
                stored = self.stat(key)  # replaced or deleted since

    def _fetch(self, stored: StoredObject, consume: Callable[[Iterator[bytes]], Result]) -> Result:
        """Pass the bytes of one version of an object to `consume`, with retries."""

        def fetch(_left_s: float) -> Result:
            try:
                return consume(self._stream(stored))
            except ObjectNotFoundError as error:
                if self.stat(stored.key).version != stored.version:
                    raise
                raise RetryableError(stored.key, "was not found, and is there") from error

        return retried(fetch, self.deadline_s)


class BoundedBuffer(io.BytesIO):
    """Collects the bytes of an object; raises `OversizedObjectError` for more than `most_bytes`."""

    def __init__(self, uri: str, most_bytes: int) -> None:
        super().__init__()
        self._uri, self._most_bytes = uri, most_bytes

    def write(self, data: "Buffer", /) -> int:
        """Append bytes."""
        if self.tell() + memoryview(data).nbytes > self._most_bytes:
            raise OversizedObjectError(
                f"{self._uri}: is too large to be read, more than {self._most_bytes / 1e6:g} MB; find out who put it "
                "there, and restore or delete it"
            )
        return super().write(data)


@contextmanager
def open_source(source: Path | bytes) -> Iterator[BinaryIO]:
    """Open the source of a put, for a block that reads it alone; raises `StoreError` if it cannot be read."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as opened:
            yield opened
    except (ConnectionError, TimeoutError):  # of the store's network
        raise
    except OSError as error:
        raise StoreError(f"{source!s}: cannot be stored, {error.strerror}; check the file") from error


def source_chunks(source: Path | bytes) -> Iterator[bytes]:
    """Yield the bytes of a source in pieces; raises as `open_source` does, whatever the caller does with them."""
    with open_source(source) as opened:
        yield from read_chunks(opened)


def _in_parallel(
    function: Callable[..., StoredObject],
    items: Iterable[tuple[Any, ...]],
    num_threads: int,
    on_done: OnDone,
) -> None:
    """Call a function for every item; after the first error no thread begins another call, and it is raised."""
    pending = list(items)
    left, taking, failed = iter(pending), threading.Lock(), threading.Event()

    def work() -> None:
        try:
            while not failed.is_set():
                with taking:
                    item = next(left, None)
                if item is None:
                    return
                stored = function(*item)
                if on_done is not None:
                    on_done(stored)
        except BaseException:
            failed.set()  # at once: the caller hears of it when it next runs
            raise

    with ThreadPoolExecutor(num_threads) as pool:  # a task for each item would cost a tenth of a small one
        try:
            for done in as_completed([pool.submit(work) for _ in pending[:num_threads]]):
                done.result()
        except BaseException:
            failed.set()
            raise
