"""Errors of the Google Cloud Storage libraries: absent, refused, or transient.

Guarantees that no message repeats an address, a header or a token. Answers as documented in
https://cloud.google.com/storage/docs/json_api/v1/status-codes.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError, Unauthorized
from google.auth.exceptions import GoogleAuthError, TransportError
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from requests import RequestException

from job.errors import BucketNotFoundError, ObjectNotFoundError, StoreError, TransientStoreError
from job.storage.retry import RetryableError

REFUSALS = frozenset(range(400, 500)) - {408, 429}
"""Status codes that are not retried."""

LOST_UPLOAD = {400, 404, 410}
"""Status codes of a resumable upload session after which the upload starts again. 400: it has other bytes."""

FAILURES = (
    *(GoogleAPICallError, RetryError, GoogleAuthError, RequestException),
    *(BaseError, FileNotFoundError),  # of `obstore`
    *(ValueError, TypeError, LookupError, AttributeError),  # while a malformed answer is parsed
)


@contextmanager
def translated_errors(
    subject: str, bucket: str, left_s: float, *, may_be_absent: bool = False, renewable: bool = False
) -> Iterator[None]:
    """Translate an error of either library into `StoreError`, or into `RetryableError` if it is transient.

    `subject` and `bucket` are URIs; `left_s` limits the libraries' own retries; an object that `may_be_absent` is an
    `ObjectNotFoundError`; `renewable` credentials can get another token.
    """
    began = time.monotonic()
    try:
        yield
    except FAILURES as error:
        refused_token = isinstance(error, Unauthorized | UnauthenticatedError) and renewable
        if what := "the bucket refused the token" if refused_token else _transient(error):
            raise RetryableError(subject, what) from error
        absent = isinstance(error, NotFound | FileNotFoundError)
        if absent and may_be_absent and not _reason(error).startswith("The specified bucket"):
            raise ObjectNotFoundError(f"{subject}: no such object; check its spelling") from error
        if absent:
            raise BucketNotFoundError(f"bucket {bucket}: no such bucket; create it or correct --bucket") from error
        if refusal := _refusal(error, bucket):
            raise StoreError(f"{subject}: {refusal}") from error
        failed_s = min(time.monotonic() - began, left_s)
        raise TransientStoreError(f"{subject}: kept failing for {failed_s:.0f} s; try again later") from error


def _transient(error: Exception) -> str | None:
    """Describe a transient error that neither library has retried; `None` for all others."""
    code = _code(error)
    request = getattr(getattr(error, "response", None), "request", None)
    if "upload_id=" in str(getattr(request, "url", "")) and code in LOST_UPLOAD:
        return "the bucket lost what was uploaded so far"
    if code == HTTPStatus.BAD_REQUEST and re.search("crc32c|md5", _reason(error), re.IGNORECASE):
        return "its bytes were damaged on their way"
    if code == HTTPStatus.FORBIDDEN and "ratelimitexceeded" in f"{error} {getattr(error, 'errors', '')}".casefold():
        return "the bucket had too many requests"
    if isinstance(error, GoogleAuthError):
        retryable = isinstance(error, TransportError) or getattr(error, "retryable", False)
        return "Google gave no token" if retryable else None
    if isinstance(error, RetryError) or re.search(r"after [1-9]\d* retries", str(error)):  # of `obstore`
        return None
    return None if code in REFUSALS else "the bucket failed"


def _refusal(error: Exception, bucket: str) -> str | None:
    """Describe a refusal, and what to do; `None` for other errors."""
    if isinstance(error, Forbidden | PermissionDeniedError):
        return (
            f"permission denied{_quoted(error)}; grant roles/storage.objectUser on {bucket} to the account that this "
            "runs as"
        )
    if isinstance(error, Unauthorized | UnauthenticatedError | GoogleAuthError):
        return (
            "there are no credentials, or Google does not accept them; run `gcloud auth application-default login`, or "
            "run this as a service account"
        )
    return f"the bucket refused{_quoted(error)}; correct that" if _code(error) in REFUSALS else None


def _code(error: Exception) -> int | None:
    """Return the status code."""
    if isinstance(error, GoogleAPICallError):
        return int(error.code or 0)
    if isinstance(error, FileNotFoundError):
        return HTTPStatus.NOT_FOUND
    match = re.search(r"status code: (\d+)", str(error))  # `obstore` has it in the text alone
    return int(match[1]) if match else None


def _reason(error: Exception) -> str:
    """Return the service's message, or an empty one; the text of the error itself contains addresses."""
    try:
        response: Any = getattr(error, "response", None)
        return str(response.json()["error"]["message"])
    except (AttributeError, ValueError, LookupError, TypeError):
        return ""


def _quoted(error: Exception) -> str:
    return f" ({reason.rstrip('.')})" if (reason := _reason(error)) else ""
