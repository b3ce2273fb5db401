"""Policies of buckets, judged as IAM judges them; for a proxy before the emulator, which knows no rights."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.fault_proxy import Sent

VERBS = {
    "roles/storage.objectUser": {"create", "delete", "get", "list"},
    "roles/storage.objectViewer": {"get", "list"},
    "roles/storage.objectCreator": {"create"},
}
"""Permissions on objects by role, without ``storage.objects.``."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A role of one account on one bucket."""

    bucket: str
    role: str
    condition: str = ""

    def allows(self, verb: str, bucket: str, key: str) -> bool:
        """Whether it gives a permission on an object, or on the bucket if there is no key."""
        resource = f"projects/_/buckets/{bucket}" + (f"/objects/{key}" if key else "")
        return bucket == self.bucket and verb in VERBS[self.role] and holds(self.condition, resource)


def holds(condition: str, resource: str) -> bool:
    """Whether a condition on a resource's name is met; raises if it has another form than that of ``infra/``.

    ``extract`` returns the text between the first occurrence of what stands before the braces and the next one of what
    stands behind them, and an empty text if one of them is missing.
    """
    return all(_finds_nothing(part, resource) for part in condition.split(" && ") if part)


def _finds_nothing(part: str, resource: str) -> bool:
    form = re.fullmatch(r'resource\.name\.extract\("([^"{]+)\{\w+\}([^"}]+)"\) == ""', part)
    assert form is not None, part
    _, begun, rest = resource.partition(form[1])
    text, ended, _ = rest.partition(form[2])
    return not (begun and ended and text)


def judged_by(bindings: Iterable[Binding]) -> Callable[[Sent], tuple[int, str] | None]:
    """Return a proxy's answer to the requests of an account: a refusal, or None for what its bindings allow."""
    held = list(bindings)

    def answer(sent: Sent) -> tuple[int, str] | None:
        verbs, bucket, key = _asked(sent)
        lacking = [verb for verb in verbs if not any(binding.allows(verb, bucket, key) for binding in held)]
        if not lacking:
            return None
        return 403, f"the account does not have storage.objects.{lacking[0]} access to {bucket}/{key}"

    return answer


def _asked(sent: Sent) -> tuple[list[str], str, str]:
    """Return the permissions that a request takes, its bucket and its key."""
    address = urlsplit(sent.path)
    if upload := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", address.path):
        query = parse_qs(address.query)
        name = query["name"][0] if "name" in query else re.search(rb'"name": ?"([^"]+)"', sent.body)[1].decode()
        return ["create"] if query.get("ifGenerationMatch") == ["0"] else ["create", "delete"], upload[1], name
    if of_api := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", address.path):
        verb = "delete" if sent.method == "DELETE" else "get" if of_api[2] else "list"
        return [verb], of_api[1], unquote(of_api[2] or "")
    bucket, _, key = unquote(address.path).removeprefix("/").partition("/")
    return ["get"], bucket, key
