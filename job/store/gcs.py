"""A bucket of Google Cloud Storage as a store.

Google's client does what needs preconditions; `obstore` does the downloads, with a tenth of the work for each object.
Both use the same credentials, endpoint (``STORAGE_EMULATOR_HOST`` included) and deadline, and retry by themselves:
nothing retries around them. Knows nothing of this machine's folders but where a fetched file goes.
"""

import io
import mimetypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import google.auth
import obstore
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    RetryError,
    Unauthorized,
)
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from obstore.auth.google import GoogleCredentialProvider
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore
from requests import RequestException

from job.errors import (
    CorruptObjectError,
    ObjectNotFoundError,
    PreconditionError,
    StoreError,
    TransientStoreError,
    UsageError,
)
from job.store import StoredObject
from job.store.base import BaseStore
from job.store.checksums import CHUNK_BYTES, chunks_of, crc32c, encode
from job.store.keys import require_key

if TYPE_CHECKING:
    from obstore.store import ClientConfig  # not there when the program runs

DEADLINE_S = 120
"""How long something that fails for a passing reason is tried again."""

SILENCE_S = 60
"""How long a connection may be silent before it counts as lost."""

REFUSALS = frozenset(range(400, 500)) - {408, 429}
"""Answers after which trying again is of no use."""

NO_LIMIT = 1_000_000
"""Of retries; the deadline is the limit."""

FIELDS = "items(name,size,generation,crc32c),nextPageToken"


class GcsStore(BaseStore):
    """A store in a bucket, or below a prefix of one, see `Store`; made by `open`.

    Args:
        bucket: Its name.
        prefix: Empty, or ends in ``/``.
    """

    num_downloads = min(4 * (os.cpu_count() or 1), 32)  # more of them only wait for each other
    num_uploads = 8  # of the ten connections that Google's client keeps, the rest is for others

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket_uri, self._prefix = f"gs://{bucket}", prefix
        with self._explained():
            client, self._objects = _connect(bucket)
        self._bucket = client.bucket(bucket)
        self._retry = DEFAULT_RETRY.with_timeout(DEADLINE_S)

    @classmethod
    def open(cls, location: str) -> "GcsStore":
        """Open ``gs://bucket[/prefix]`` and look whether it can be read.

        Raises:
            UsageError: If the location is not of this form.
            StoreError: If there is no such bucket, no permission, or no credentials.
        """
        parsed = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*?))?/?", location)
        if parsed is None:
            raise UsageError(
                f"bucket {location}: is not the address of a bucket; write gs://BUCKET or gs://BUCKET/PREFIX"
            )
        bucket, prefix = parsed.groups(default="")
        store = cls(bucket, f"{require_key(prefix)}/" if prefix else "")
        with store._explained():
            next(store._listed("", max_results=1), None)
        return store

    @property
    def uri(self) -> str:
        """``gs://bucket/prefix``."""
        return f"{self._bucket_uri}/{self._prefix}".rstrip("/")

    def put(
        self, key: str, source: Path | bytes, *, overwrite: bool = False, if_version: str | None = None
    ) -> StoredObject:
        """Store a file or bytes; see `Store.put`."""
        blob = self._blob(key)
        with _opened(source) as opened, self._explained(key):
            try:
                blob.upload_from_file(
                    opened,
                    size=opened.seek(0, io.SEEK_END),
                    rewind=True,
                    content_type=mimetypes.guess_type(key)[0] or "application/octet-stream",
                    if_generation_match=int(if_version) if if_version is not None else None if overwrite else 0,
                    checksum="crc32c",
                    retry=self._retry,
                    timeout=SILENCE_S,
                )
            except PreconditionFailed:
                there = self._stat_if_there(key)
                if there is not None and there.crc32c == _checksum(opened) and there.size_bytes == opened.tell():
                    return there
                raise
        return _describe(key, blob)

    def list(self, prefix: str = "", *, checksums: bool = False) -> list[StoredObject]:  # noqa: ARG002 -- they are free
        """Return the objects whose key starts with `prefix`, sorted; see `Store.list`."""
        if folder := prefix.rpartition("/")[0]:
            require_key(folder)
        with self._explained():
            return [
                _describe(blob.name.removeprefix(self._prefix), blob)
                for blob in self._listed(prefix)
                if not blob.name.endswith("/")  # how the console marks an empty folder
            ]

    def stat(self, key: str) -> StoredObject:
        """Return one object's description; see `Store.stat`."""
        blob = self._blob(key)
        with self._explained(key, may_be_absent=True):
            blob.reload(retry=self._retry, timeout=SILENCE_S)
        return _describe(key, blob)

    def delete(self, key: str, *, if_version: str | None = None) -> None:
        """Delete an object; see `Store.delete`."""
        generation = int(if_version) if if_version is not None else None
        with self._explained(key), suppress(NotFound):
            self._blob(key).delete(if_generation_match=generation, retry=self._retry, timeout=SILENCE_S)

    def _blob(self, key: str) -> Blob:
        return self._bucket.blob(self._prefix + require_key(key))

    def _listed(self, prefix: str, max_results: int | None = None) -> Iterator[Blob]:
        yield from self._bucket.list_blobs(
            prefix=self._prefix + prefix,
            max_results=max_results,
            fields=FIELDS,
            retry=self._retry,
            timeout=SILENCE_S,
        )

    def _stat_if_there(self, key: str) -> StoredObject | None:
        try:
            return self.stat(key)
        except ObjectNotFoundError:
            return None

    def _bytes_of(self, stored: StoredObject) -> Iterator[bytes]:
        crc = 0
        with self._explained(stored.key, may_be_absent=True):
            fetched = obstore.get(self._objects, self._prefix + require_key(stored.key))
            if fetched.meta["version"] != stored.version:
                raise ObjectNotFoundError(f"{self.uri}/{stored.key}: was replaced since it was listed; start again")
            # In one piece is cheaper, which counts when there are thousands.
            for chunk in fetched.stream() if stored.size_bytes > CHUNK_BYTES else [fetched.bytes().to_bytes()]:
                yield chunk
                crc = crc32c(chunk, crc)
        if encode(crc) != stored.crc32c:
            raise CorruptObjectError(
                f"{self.uri}/{stored.key}: its bytes were damaged on the way, CRC-32C is {stored.crc32c} in the bucket "
                f"and {encode(crc)} on arrival; try again"
            )

    @contextmanager
    def _explained(self, key: str = "", *, may_be_absent: bool = False) -> Iterator[None]:
        """Turn the errors of both libraries into those of a store, without the addresses and headers they tell."""
        subject = f"{self.uri}/{key}".rstrip("/")
        try:
            yield
        except (NotFound, FileNotFoundError) as error:
            if may_be_absent and not _reason(error).startswith("The specified bucket"):
                raise ObjectNotFoundError(f"{subject}: no such object; check its spelling") from error
            raise StoreError(f"bucket {self._bucket_uri}: no such bucket; create it or correct --bucket") from error
        except PreconditionFailed as error:
            raise PreconditionError(
                f"{subject}: exists already, or is not the version that was expected; look at who else writes to it"
            ) from error
        except (Forbidden, PermissionDeniedError) as error:
            raise StoreError(
                f"{subject}: permission denied{_quoted(error)}; grant roles/storage.objectUser on "
                f"{self._bucket_uri} to the account that this runs as"
            ) from error
        except (Unauthorized, UnauthenticatedError, GoogleAuthError) as error:
            if isinstance(error, TransportError) or getattr(error, "retryable", False):
                raise TransientStoreError(f"{subject}: Google kept refusing a token; try again later") from error
            raise StoreError(
                f"{subject}: there are no credentials, or Google does not accept them; run `gcloud auth "
                "application-default login`, or run this as a service account"
            ) from error
        except DataCorruption as error:
            raise CorruptObjectError(f"{subject}: its bytes were damaged on the way; try again") from error
        except (RetryError, RequestException, BaseError, GoogleAPICallError) as error:
            if _is_refusal(error):
                raise StoreError(f"{subject}: the bucket refused{_quoted(error)}; correct that") from error
            raise TransientStoreError(f"{subject}: kept failing for {DEADLINE_S} s; try again later") from error


def _connect(bucket: str) -> tuple[Client, GCSStore]:
    """Make both clients, with the same credentials and endpoint."""
    # For the sake of traces, Google's client would ask for the bucket's own metadata, which the role does not allow.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
    if emulated:
        client, provider = Client(), None
    else:
        credentials, project = google.auth.default(scopes=Client.SCOPE)
        client, provider = Client(project, credentials), GoogleCredentialProvider(credentials)
    client_options: ClientConfig = {
        "timeout": "1 day",
        "read_timeout": timedelta(seconds=SILENCE_S),
        "allow_http": client.api_endpoint.startswith("http://"),
    }
    if emulated:  # it knows the kind of download that `obstore` asks for under this name only
        client_options["default_headers"] = {"Host": "storage.googleapis.com"}
    downloads = GCSStore(
        bucket,
        config={"base_url": client.api_endpoint, "skip_signature": emulated},
        client_options=client_options,
        retry_config={"retry_timeout": timedelta(seconds=DEADLINE_S), "max_retries": NO_LIMIT},
        credential_provider=provider,
    )
    return client, downloads


@contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        opened = source.open("rb")
    except OSError as error:
        raise StoreError(f"{source}: cannot be stored, {error.strerror}; check the file") from error
    with opened:
        yield opened


def _checksum(opened: BinaryIO) -> str:
    """Return the CRC-32C of a whole file, and stand at its end."""
    opened.seek(0)
    crc = 0
    for chunk in chunks_of(opened):
        crc = crc32c(chunk, crc)
    return encode(crc)


def _describe(key: str, blob: Blob) -> StoredObject:
    return StoredObject(key, int(blob.size), str(blob.generation), blob.crc32c)


def _reason(error: Exception) -> str:
    """Return what the service itself said, if it said something; an error's own text tells addresses too."""
    try:
        return str(error.response.json()["error"]["message"])  # type: ignore[attr-defined]
    except (AttributeError, ValueError, LookupError, TypeError):
        return ""


def _quoted(error: Exception) -> str:
    return f" ({reason.rstrip('.')})" if (reason := _reason(error)) else ""


def _is_refusal(error: Exception) -> bool:
    """Tell whether trying again is of no use."""
    if isinstance(error, GoogleAPICallError):
        return error.code in REFUSALS
    told = re.search(r"status code: (\d+)", str(error))  # `obstore` has no other way to tell
    return told is not None and int(told[1]) in REFUSALS
