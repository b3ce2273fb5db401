"""Store in a bucket of Google Cloud Storage.

Google's client does everything with preconditions, and reads small objects, in one request each; `obstore` does the
downloads into files, with a tenth of the work an object.
Both use the same credentials, endpoint (``STORAGE_EMULATOR_HOST`` included) and deadline, and retry by themselves; the
transient errors that they do not retry go through `retried`, within that deadline.
"""

import mimetypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import google.auth
import obstore
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.api_core.retry import Retry
from google.cloud.storage import Blob, Client
from google.cloud.storage.retry import DEFAULT_RETRY
from obstore.auth.google import GoogleCredentialProvider
from obstore.exceptions import UnauthenticatedError
from obstore.store import GCSStore

from job.errors import ObjectNotFoundError, PreconditionError, StoreError, TransientStoreError, UsageError
from job.storage.base import BaseStore, BoundedBuffer, open_source
from job.storage.checksums import CHUNK_BYTES, crc32c, encode_crc32c, read_crc32c
from job.storage.gcs_errors import translated_errors
from job.storage.keys import require_key
from job.storage.object_store import RECORD_BYTES, StoredObject
from job.storage.retry import RetryableError, retried

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from obstore.store import ClientConfig  # not there when the program runs

DEADLINE_S = 120
"""Limit of all retries of an operation."""

SILENCE_S = 60
"""Read timeout of a connection."""

NO_LIMIT = 1_000_000
"""Number of retries; the deadline is the limit."""

FIELDS = "items(name,size,generation,crc32c),nextPageToken"

Result = TypeVar("Result")


class GcsStore(BaseStore):
    """A store in a bucket, or below a prefix that ends in ``/``, see `Store`; made by `open`."""

    num_downloads = min(4 * (os.cpu_count() or 1), 32)  # more only wait for each other
    num_uploads = 8  # of the ten connections that Google's client keeps, the rest is for others

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket_uri, self._prefix = f"gs://{bucket}", prefix
        self._credentials: Credentials | None = None
        client = self._retried(lambda _retry: self._connected())
        self._bucket = client.bucket(bucket)
        self._objects = self._downloads()

    @property
    def deadline_s(self) -> float:
        """Seconds for which transient failures are retried."""
        return DEADLINE_S

    @classmethod
    def open(cls, location: str, *, readable: bool = True) -> "GcsStore":
        """Open ``gs://bucket[/prefix]``; raises `UsageError` if it is none.

        Raises `StoreError` if a bucket that is to be `readable` is not.
        """
        parsed = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*?))?/?", location)
        if parsed is None:
            raise UsageError(
                f"bucket {location}: is not the address of a bucket; write gs://BUCKET or gs://BUCKET/PREFIX"
            )
        bucket, prefix = parsed.groups(default="")
        store = cls(bucket, f"{require_key(prefix)}/" if prefix else "")
        if readable:
            store._retried(lambda retry: next(store._listed("", retry, max_results=1), None))
        return store

    @property
    def uri(self) -> str:
        """``gs://bucket/prefix``."""
        return f"{self._bucket_uri}/{self._prefix}".rstrip("/")

    def put(self, key: str, source: Path | bytes, *, overwrite: bool = False) -> StoredObject:
        """Store a file or bytes; see `Store.put`."""
        with open_source(source) as opened:
            checksum = read_crc32c(opened)
            size_bytes = opened.tell()

            def upload(retry: Retry) -> StoredObject:
                blob = self._blob(key)
                blob.crc32c = checksum  # the bucket refuses other bytes
                blob.cache_control = "no-store"  # a public object is read from caches for an hour by default
                try:
                    blob.upload_from_file(
                        opened,
                        size=size_bytes,
                        rewind=True,
                        content_type=mimetypes.guess_type(key)[0] or "application/octet-stream",
                        if_generation_match=None if overwrite else 0,
                        checksum=None,  # in several requests the client would delete any newer object
                        retry=retry,
                        timeout=SILENCE_S,
                    )
                except PreconditionFailed as error:
                    there = self._found(key)
                    if there is not None and (there.crc32c, there.size_bytes) == (checksum, size_bytes):
                        return there
                    subject = f"{self.uri}/{key}"
                    if there is None or overwrite:
                        raise RetryableError(subject, "the bucket refused a precondition that holds") from error
                    raise PreconditionError(
                        f"{subject}: exists already, with other bytes; choose another name"
                    ) from error
                if (blob.crc32c, blob.size) != (checksum, size_bytes):
                    with suppress(NotFound, PreconditionFailed):
                        blob.delete(if_generation_match=blob.generation, retry=retry, timeout=SILENCE_S)
                    raise RetryableError(f"{self.uri}/{key}", "its bytes were damaged on their way")
                return _describe(key, blob)

            return self._retried(upload, key)

    def list(self, prefix: str = "", *, checksums: bool = False) -> list[StoredObject]:  # noqa: ARG002 -- they are free
        """Return the objects whose key starts with `prefix`, sorted; see `Store.list`."""
        if folder := prefix.rpartition("/")[0]:
            require_key(folder)
        return self._retried(
            lambda retry: [
                _describe(blob.name.removeprefix(self._prefix), blob)
                for blob in self._listed(prefix, retry)
                if not blob.name.endswith("/")  # how the console marks an empty folder
            ]
        )

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Return the names of the folders directly below a prefix; see `Store.folders`."""
        start = self._prefix + prefix

        def look(retry: Retry) -> tuple[str, ...]:
            found = self._bucket.list_blobs(
                prefix=start, delimiter="/", fields="prefixes,nextPageToken", retry=retry, timeout=SILENCE_S
            )
            for _page in found.pages:
                pass  # each adds to the prefixes
            return tuple(sorted(name.removeprefix(start).removesuffix("/") for name in found.prefixes))

        return self._retried(look)

    def read(self, key: str, most_bytes: int = RECORD_BYTES) -> bytes:
        """Return the bytes of a small object, in one request if nothing fails; see `Store.read`."""
        blob = self._blob(key)

        def download(_retry: Retry) -> bytes:
            collected = BoundedBuffer(f"{self.uri}/{key}", most_bytes)
            blob.download_to_file(collected, checksum=None, retry=None, timeout=SILENCE_S)
            return collected.getvalue()

        try:  # without the client's own retries, as it leaves the answers to failed tries open
            data = self._retried(download, key, may_be_absent=True)
        except ObjectNotFoundError as error:
            if "No such object" in str(error.__cause__):  # else it may be the bucket that is gone
                raise
        else:
            if encode_crc32c(crc32c(data)) == blob.crc32c:
                return data
        return super().read(key, most_bytes)

    def stat(self, key: str) -> StoredObject:
        """Return one object's description; see `Store.stat`."""

        def look(retry: Retry) -> StoredObject:
            blob = self._blob(key)
            blob.reload(retry=retry, timeout=SILENCE_S)
            return _describe(key, blob)

        return self._retried(look, key, may_be_absent=True)

    def delete(self, key: str) -> None:
        """Delete an object; see `Store.delete`."""
        blob = self._blob(key)

        def delete(retry: Retry) -> None:
            with suppress(NotFound):
                blob.delete(retry=retry, timeout=SILENCE_S)

        self._retried(delete, key)

    def _found(self, key: str) -> StoredObject | None:
        """Describe the object under a taken key; None if it is gone. `PreconditionError` if it may not be read."""
        try:
            return self.stat(key)
        except ObjectNotFoundError:
            return None
        except TransientStoreError:
            raise
        except StoreError as error:
            raise PreconditionError(
                f"{self.uri}/{key}: exists already, and may not be read to compare; choose another name"
            ) from error

    def _blob(self, key: str) -> Blob:
        return self._bucket.blob(self._prefix + require_key(key))

    def _listed(self, prefix: str, retry: Retry, max_results: int | None = None) -> Iterator[Blob]:
        yield from self._bucket.list_blobs(
            prefix=self._prefix + prefix,
            max_results=max_results,
            fields=FIELDS,
            retry=retry,
            timeout=SILENCE_S,
        )

    def _stream(self, stored: StoredObject) -> Iterator[bytes]:
        crc, subject = 0, f"{self.uri}/{stored.key}"
        with self._translated_errors(stored.key, may_be_absent=True):
            try:
                fetched = obstore.get(self._objects, self._prefix + require_key(stored.key))
            except UnauthenticatedError:
                self._objects = self._downloads()  # it would use the same token until that expires
                raise
            if fetched.meta["version"] != stored.version:
                raise ObjectNotFoundError(f"{subject}: was replaced since it was listed; start again")
            # In one piece is cheaper, which counts when there are thousands.
            for chunk in fetched.stream() if stored.size_bytes > CHUNK_BYTES else [fetched.bytes().to_bytes()]:
                yield chunk
                crc = crc32c(chunk, crc)
        if encode_crc32c(crc) != stored.crc32c:
            raise RetryableError(subject, "its bytes were damaged on their way")

    def _retried(self, operation: Callable[[Retry], Result], key: str = "", *, may_be_absent: bool = False) -> Result:
        """Run an operation that Google's client retries; retry the transient errors that the client does not."""

        def once(left_s: float) -> Result:
            with self._translated_errors(key, left_s, may_be_absent=may_be_absent):
                return operation(DEFAULT_RETRY.with_timeout(left_s))

        return retried(once, self.deadline_s)

    def _translated_errors(
        self, key: str, left_s: float | None = None, *, may_be_absent: bool = False
    ) -> AbstractContextManager[None]:
        return translated_errors(
            f"{self.uri}/{key}".rstrip("/"),
            self._bucket_uri,
            self.deadline_s if left_s is None else left_s,
            may_be_absent=may_be_absent,
            renewable=self._credentials is not None,
        )

    def _connected(self) -> Client:
        """Return Google's client, with the credentials that this machine has."""
        # For the sake of traces, it would ask for the bucket's own metadata, which the role does not allow.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            return Client()
        self._credentials, project = google.auth.default(scopes=Client.SCOPE)
        return Client(project, self._credentials)

    def _downloads(self) -> GCSStore:
        """Return `obstore`'s client, with the same credentials and endpoint."""
        endpoint, emulated = self._bucket.client.api_endpoint, self._credentials is None
        client_options: ClientConfig = {
            "timeout": "1 day",
            "read_timeout": timedelta(seconds=SILENCE_S),
            "allow_http": endpoint.startswith("http://"),
        }
        if emulated:  # it knows the kind of download that `obstore` asks for under this name only
            client_options["default_headers"] = {"Host": "storage.googleapis.com"}
        return GCSStore(
            self._bucket.name,
            config={"base_url": endpoint, "skip_signature": emulated},
            client_options=client_options,
            retry_config={"retry_timeout": timedelta(seconds=self.deadline_s), "max_retries": NO_LIMIT},
            credential_provider=None if emulated else GoogleCredentialProvider(self._credentials),
        )


def _describe(key: str, blob: Blob) -> StoredObject:
    return StoredObject(key, int(blob.size), str(blob.generation), blob.crc32c)
