"""Faults that only a bucket has: lost answers, refusals, damage on the way."""

import json
import sys

import google.auth
import pytest
from google.auth.credentials import Credentials
from google.oauth2.credentials import Credentials as StaticToken

from job.cli.runs import require_run
from job.errors import (
    MachineError,
    ObjectNotFoundError,
    PreconditionError,
    StoreError,
    TransientStoreError,
)
from job.runs.lineage import extended_request, find_start
from job.runs.request import Execution
from job.runs.search import survey
from job.storage import gcs as module
from job.storage.open_store import open_store
from tests.support.run_records import record_run

SECRET = "ya29.SECRET"  # noqa: S105 -- looks like one, and must not be seen

OPERATIONS = {
    "put": lambda store, _: store.put("other", b"x"),
    "overwrite": lambda store, _: store.put("key", b"x", overwrite=True),
    "list": lambda store, _: store.list(),
    "folders": lambda store, _: store.folders("a/"),
    "stat": lambda store, _: store.stat("key"),
    "delete": lambda store, _: store.delete("key"),
    "read": lambda store, _: store.read("key"),
    "get": lambda store, folder: store.get("key", folder / "target"),
    "get_many": lambda store, folder: store.get_many([(LISTED[0], folder / "target")]),
    "put_many": lambda store, folder: store.put_many([(folder / "source", "another")]),
}

LISTED = []


@pytest.fixture(params=OPERATIONS)
def operation(request, proxy, proxied, tmp_path):
    """Prepare each operation on a bucket that has an object under ``key``."""
    LISTED[:] = [proxied.put("key", b"wild")]
    (tmp_path / "source").write_bytes(b"x")
    proxy.requests.clear()
    return lambda store: OPERATIONS[request.param](store, tmp_path)


LARGE = bytes(9 << 20)
"""An object of this size is sent in several requests."""


def first_upload(proxy):
    """Return a predicate: whether a request is the first upload."""
    return lambda sent: sent.method == "POST" and [each.method for each in proxy.requests].count("POST") == 1


def answer_once(proxy, wanted, *answer):
    """Answer the first request that is wanted in one way, and pass all others on; return where that is noted."""
    answered = []

    def decide(sent):
        if answered or not wanted(sent):
            return None
        answered.append(sent)
        return answer

    proxy.answer = decide
    return answered


def any_request(_sent):
    """Want every request."""
    return True


@pytest.fixture
def at_once(monkeypatch):
    """Make the deadline pass at the first failure."""
    monkeypatch.setattr(module, "DEADLINE_S", 0)


def is_download(sent):
    """Whether a request fetches the bytes of an object."""
    return sent.method == "GET" and ("/storage/v1/" not in sent.path or "alt=media" in sent.path)


def test_own_success_whose_answer_was_lost_is_recognised(proxy, proxied):
    """A create-only put that took place and whose answer was lost is repeated, refused and recognised as done."""
    proxy.lose = first_upload(proxy)
    stored = proxied.put("key", b"mine")
    assert [sent.method for sent in proxy.requests] == ["POST", "POST", "GET"]
    assert proxied.read("key") == b"mine"
    assert proxied.stat("key") == stored


def test_lost_answer_does_not_hide_a_rival(proxy, proxied):
    """A put whose answer was lost fails if the object has other bytes."""
    proxied.put("key", b"theirs")
    proxy.requests.clear()
    proxy.lose = first_upload(proxy)
    with pytest.raises(PreconditionError):
        proxied.put("key", b"mine")
    assert proxied.read("key") == b"theirs"


def test_objects_are_not_kept_by_caches(proxy, proxied):
    """A heartbeat in a bucket that everybody may read is not read from a cache of the hour before."""
    proxied.put("key", b"wild")
    assert b'"cacheControl": "no-store"' in proxy.requests[0].body


def test_large_files_are_created_under_the_precondition(proxy, proxied, tmp_path):
    """A file that goes in several requests is bound to the precondition, which the emulator itself does not honour."""
    (tmp_path / "large").write_bytes(bytes(9 << 20))
    proxied.put("key", tmp_path / "large")
    assert "uploadType=resumable" in proxy.requests[0].path
    assert "ifGenerationMatch=0" in proxy.requests[0].path


@pytest.mark.parametrize("code", [404, 410])
def test_lost_upload_session_is_begun_anew(proxy, proxied, code):
    """An upload in several requests whose address the bucket has forgotten is begun anew, and is no missing bucket."""
    answered = answer_once(proxy, lambda sent: sent.method == "PUT", code, "No such upload.")
    proxied.put("key", LARGE)
    assert len(answered) == 1
    assert [sent.method for sent in proxy.requests] == ["POST", "PUT", "POST", "PUT"]
    assert proxied.stat("key").size_bytes == len(LARGE)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("code", [404, 410])
def test_upload_sessions_that_are_always_lost_are_transient(proxy, proxied, code):
    """A bucket that keeps forgetting uploads can be tried again later: it is there, and refuses nothing."""
    proxy.answer = lambda sent: (code, "No such upload.") if sent.method == "PUT" else None
    with pytest.raises(TransientStoreError, match="lost what was uploaded") as caught:
        proxied.put("key", LARGE)
    assert caught.value.exit_code == 75


def test_upload_that_ended_before_its_session_was_lost_is_recognised(proxy, proxied):
    """An upload that took place, whose answer was lost and whose address is gone, is begun anew and found done."""

    def refuse(sent):  # the emulator does not hold resumable uploads to a precondition
        sessions = [each for each in proxy.requests if each.method == "POST"]
        return (412, "conditionNotMet") if sent.method == "POST" and len(sessions) > 1 else None

    proxy.lose = lambda sent: sent.method == "PUT" and [each.method for each in proxy.requests].count("PUT") == 1
    proxy.answer = lambda sent: (
        (404, "No such upload.")
        if sent.method == "PUT" and [each.method for each in proxy.requests].count("PUT") > 1
        else refuse(sent)
    )
    stored = proxied.put("key", LARGE)
    assert [sent.method for sent in proxy.requests] == ["POST", "PUT", "PUT", "POST", "GET"]
    assert proxied.stat("key") == stored


@pytest.mark.parametrize("content", [b"wild", LARGE], ids=["small", "large"])
def test_damage_on_the_way_up_is_refused_and_sent_again(proxy, proxied, content):
    """An upload sends its checksum before the bytes, and is repeated if the bucket refuses it for another checksum."""
    message = 'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "BBBBBB==".'
    upload = "PUT" if content is LARGE else "POST"
    answered = answer_once(proxy, lambda sent: sent.method == upload, 400, message, "invalid")
    stored = proxied.put("key", content)
    assert len(answered) == 1
    assert json.dumps({"crc32c": stored.crc32c})[1:-1].encode() in proxy.requests[0].body
    assert proxied.read("key") == content


def test_bytes_that_were_damaged_on_the_way_up_do_not_stay(proxy, proxied):
    """If a bucket accepts damaged bytes, exactly those are removed, and the upload is repeated."""
    proxy.alter = lambda sent, body: body.replace(b"wild", b"mild") if first_upload(proxy)(sent) else body
    stored = proxied.put("key", b"wild")
    assert [sent.method for sent in proxy.requests] == ["POST", "DELETE", "POST"]
    assert "ifGenerationMatch=" in proxy.requests[1].path
    assert proxied.stat("key") == stored
    assert proxied.read("key") == b"wild"


@pytest.mark.usefixtures("at_once")
def test_damage_that_does_not_end_is_transient(proxy, proxied):
    """An upload that is damaged each time leaves nothing in the bucket, and can be tried again later."""
    proxy.alter = lambda _sent, body: body.replace(b"wild", b"mild")
    with pytest.raises(TransientStoreError, match="damaged on their way"):
        proxied.put("key", b"wild")
    assert proxied.list() == []


def test_refused_precondition_that_holds_is_tried_again(proxy, proxied):
    """A create-only put that is refused though nothing is there is repeated."""
    answered = answer_once(proxy, lambda sent: sent.method == "POST", 412, "conditionNotMet")
    proxied.put("key", b"mine")
    assert len(answered) == 1
    assert proxied.read("key") == b"mine"


@pytest.mark.usefixtures("at_once")
def test_a_refused_put_of_a_missing_object_is_no_conflict(proxy, proxied):
    """A create-only put that is refused again and again though nothing is there is transient, and no conflict."""
    proxy.answer = lambda sent: (412, "conditionNotMet") if sent.method == "POST" else None
    with pytest.raises(TransientStoreError, match="refused a precondition that holds"):
        proxied.put("key", b"mine")


def test_missing_permission_says_which_role(proxy, proxied, operation):
    """Every operation without permission ends with the role to grant, and contains no address."""
    proxy.answer = lambda _: (403, "me@x does not have storage.objects.get access.")
    with pytest.raises(StoreError, match=r"permission denied.*roles/storage\.objectUser") as caught:
        operation(proxied)
    assert caught.value.exit_code == 74
    assert proxy.url not in str(caught.value)


def test_refusals_repeat_the_message_of_google(proxy, proxied):
    """Google's message about a refusal is passed on."""
    proxy.answer = lambda _: (403, "me@x does not have storage.objects.create access.")
    with pytest.raises(StoreError, match=r"permission denied \(me@x does not have storage.objects.create access\)"):
        proxied.put("key", b"x")


def test_refusal_is_not_repeated(proxy, proxied, operation):
    """Every operation that the bucket refuses for good ends at once, and is not called transient."""
    proxy.answer = lambda _: (400, "Invalid something.")
    with pytest.raises(StoreError, match="refused") as caught:
        operation(proxied)
    assert not isinstance(caught.value, TransientStoreError)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("code", [408, 429, 503])
def test_failing_bucket_is_transient(proxy, proxied, operation, code):
    """Every operation that fails until the deadline can be tried again later, and contains no address."""
    store = open_store(proxied.uri)
    proxy.answer = lambda _: (code, "backend")
    with pytest.raises(TransientStoreError, match="kept failing for 0 s") as caught:
        operation(store)
    assert caught.value.exit_code == 75
    assert proxy.url not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        (408, "timeout"),
        (429, "Too many requests.", "rateLimitExceeded"),
        (503, "backend"),
        (403, "The rate of requests is too high.", "rateLimitExceeded"),
        (403, "User rate limit exceeded.", "userRateLimitExceeded"),
    ],
    ids=str,
)
def test_passing_failure_is_not_noticed(proxy, proxied, operation, answer):
    """Every operation is repeated if its first request fails for a passing reason."""
    answered = answer_once(proxy, any_request, *answer)
    operation(proxied)
    assert len(answered) == 1
    first = proxy.requests[0]
    assert [(sent.method, sent.path) for sent in proxy.requests].count((first.method, first.path)) > 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}"], ids=str)
def test_description_that_makes_no_sense_is_asked_for_again(proxy, proxied, body):
    """An answer that describes no object is no reason to stop: the bucket is asked again."""
    stored = proxied.put("key", b"wild")
    proxy.requests.clear()
    proxy.damage = lambda _sent, whole: body if len(proxy.requests) == 1 else whole
    assert proxied.stat("key") == stored
    assert len(proxy.requests) == 2


def test_two_minutes_of_failures_are_outlasted():
    """A transient failure is tried again for as long as a zone's outage takes to be moved away from."""
    assert module.DEADLINE_S == 120


def test_a_list_of_several_pages_is_whole(proxy, proxied):
    """Objects of a second page are listed, and a second page that fails once is asked for again."""
    for number in range(5):
        proxied.put(f"many/{number}", b"x")
    proxy.forward = lambda path: (
        path.replace("projection=", "maxResults=2&projection=") if "prefix=many" in path else path
    )
    failed = answer_once(proxy, lambda sent: "pageToken" in sent.path, 503, "backend")
    assert [stored.key for stored in proxied.list("many/")] == [f"many/{number}" for number in range(5)]
    assert len(failed) == 1
    assert sum("pageToken" in sent.path for sent in proxy.requests) == 3


def test_the_bucket_itself_is_never_asked_for(proxy, emulator):
    """Nothing is requested but objects, because the role that messages name allows nothing else."""
    store = open_store(emulator.make_bucket())
    store.put("key", b"x")
    store.delete("key")
    assert [sent.path for sent in proxy.requests if "/o" not in sent.path.partition("?")[0]] == []


def test_missing_bucket_is_not_a_missing_object(proxy, proxied):
    """A bucket that was removed is not taken for an absent object."""
    proxy.answer = lambda _sent: (404, "The specified bucket does not exist.")
    for look in (lambda: proxied.stat("key"), lambda: proxied.read("key"), lambda: proxied.put("key", b"x")):
        with pytest.raises(StoreError, match="no such bucket") as caught:
            look()
        assert not isinstance(caught.value, ObjectNotFoundError)


FETCHES = {
    "get": lambda store, _stored, target: store.get("key", target),
    "read": lambda store, _stored, target: target.write_bytes(store.read("key")),
    "get_many": lambda store, stored, target: store.get_many([(stored, target)]),
}


@pytest.fixture(params=FETCHES)
def fetch(request, proxied, tmp_path):
    """Put an object, and prepare each way of fetching it into ``target``."""
    stored = proxied.put("key", b"wild")
    return lambda: FETCHES[request.param](proxied, stored, tmp_path / "target")


@pytest.mark.usefixtures("at_once")
def test_damage_on_the_way_is_noticed(proxy, fetch, tmp_path):
    """Bytes that change on every way end every kind of fetching, for a passing reason, and leave no file."""
    proxy.damage = lambda sent, body: b"mild" if is_download(sent) else body
    with pytest.raises(TransientStoreError, match="damaged on their way"):
        fetch()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_damaged_read_is_read_again(proxy, fetch, tmp_path):
    """One byte that changes on one way costs one more request, for every kind of fetching."""
    downloads = []

    def damage(sent, body):
        downloads.extend([sent] if is_download(sent) else [])
        return b"mild" if is_download(sent) and len(downloads) == 1 else body

    proxy.damage = damage
    fetch()
    assert (tmp_path / "target").read_bytes() == b"wild"
    assert len(downloads) == 2


@pytest.mark.parametrize("content", [b"wild", LARGE], ids=["small", "large"])
def test_connection_that_breaks_in_the_middle_is_outlasted(proxy, proxied, tmp_path, content):
    """A download whose connection breaks after half of the bytes is whole in the end."""
    proxied.put("key", content)
    broken = []
    proxy.cut = lambda sent: is_download(sent) and not broken and not broken.append(sent)
    proxied.get("key", tmp_path / "target")
    assert len(broken) == 1
    assert (tmp_path / "target").read_bytes() == content


def test_object_that_is_there_and_not_found_is_asked_for_again(proxy, fetch, tmp_path):
    """A download that is answered with 'not found', though the object's description is there, is repeated."""
    answered = answer_once(proxy, is_download, 404, "Not found")
    fetch()
    assert len(answered) == 1
    assert (tmp_path / "target").read_bytes() == b"wild"


def test_a_small_object_is_read_in_one_request(proxy, proxied):
    """Reading a small object takes one request, which returns bytes and checksum; an absent one is asked for twice."""
    proxied.put("key", b"wild")
    proxy.requests.clear()
    assert proxied.read("key") == b"wild"
    assert len(proxy.requests) == 1
    proxy.answer = lambda _sent: (404, "No such object: bucket/key")
    with pytest.raises(ObjectNotFoundError):
        proxied.read("key")
    assert len(proxy.requests) == 3


def test_one_false_not_found_is_not_believed(proxy, proxied, operation):
    """No operation takes an object, or the bucket, for absent by one answer."""
    answered = answer_once(proxy, any_request, 404, "No such object: bucket/key")
    operation(proxied)
    assert len(answered) == 1


def test_one_false_not_found_hides_no_run(proxy, proxied, tmp_path):
    """Whichever answer about a finished run is a false 404, the run is found by its name and in the list, and so is the
    end that an extension begins with.
    """
    recorded = record_run(tmp_path / "bucket", [0.6, 0.7])
    for stored in recorded.store.list():
        proxied.put(stored.key, recorded.store.read(stored.key))
    request = extended_request("zebra", recorded.record(), 9, None, Execution())

    def look():
        found = require_run(proxied, "zebra")[1], find_start(proxied, request, None)
        return found, [seen.run.name for seen in survey(proxied).runs]

    proxy.requests.clear()
    expected = look()
    assert expected[1] == ["zebra"]
    for number in range(1, len(proxy.requests) + 1):
        proxy.requests.clear()
        answered = answer_once(
            proxy, lambda _sent, at=number: len(proxy.requests) == at, 404, "No such object: bucket/key"
        )
        assert look() == expected
        assert len(answered) == 1


def test_marks_of_empty_folders_are_no_objects(proxied):
    """An object that the console makes to show an empty folder is not listed."""
    proxied.put("a/b", b"x")
    proxied._bucket.blob("a/").upload_from_string(b"")
    assert [stored.key for stored in proxied.list()] == ["a/b"]


def test_prefixes_of_one_bucket_are_apart(emulator, monkeypatch):
    """A store below a prefix sees its own objects alone, by their keys there."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    bucket = emulator.make_bucket()
    open_store(f"{bucket}/one").put("key", b"1")
    open_store(f"{bucket}/one2/").put("key", b"2")
    assert [stored.key for stored in open_store(f"{bucket}/one").list()] == ["key"]
    assert [stored.key for stored in open_store(bucket).list()] == ["one/key", "one2/key"]


class Renewable(Credentials):
    """Credentials that get another token each time."""

    num_renewed = 0

    def refresh(self, request):  # noqa: ARG002 -- as it is called
        self.num_renewed += 1
        self.token = f"{SECRET}{self.num_renewed}"


@pytest.fixture
def signed(emulator, proxy, proxied, monkeypatch):
    """Open the bucket with credentials that can be renewed; the emulator knows downloads by Google's name alone."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", proxy.url)
    monkeypatch.setattr(google.auth, "default", lambda **_: (Renewable(), None))
    proxy.host = "storage.googleapis.com"
    store = open_store(proxied.uri)
    proxy.requests.clear()
    return store


def test_both_clients_use_the_same_credentials(proxy, signed, operation):
    """Requests of both libraries carry the token of Google's default credentials, and no message repeats it."""
    proxy.answer = lambda _: (403, f"Bearer {SECRET[:4]}")
    with pytest.raises(StoreError) as caught:
        operation(signed)
    assert all(sent.token.startswith(f"Bearer {SECRET}") for sent in proxy.requests)
    assert SECRET not in str(caught.value)


def test_refused_token_is_renewed(proxy, signed, operation):
    """Every operation whose token is refused once gets another token and is repeated."""
    used = []

    def refuse(sent):
        used.append(sent.token)
        return (401, "Invalid Credentials") if sent.token == used[0] else None

    proxy.answer = refuse
    operation(signed)
    assert len(set(used)) > 1


@pytest.mark.usefixtures("at_once")
def test_tokens_that_are_always_refused_are_transient(proxy, signed, operation):
    """Every operation whose renewed tokens are refused until the deadline can be tried again later."""
    proxy.answer = lambda _: (401, "Invalid Credentials")
    with pytest.raises(TransientStoreError, match="refused the token"):
        operation(signed)


def test_credentials_that_cannot_be_renewed_say_how_to_get_some(proxy, proxied, monkeypatch):
    """A token that is refused and cannot be renewed ends at once, with the command that makes credentials."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", proxy.url)
    monkeypatch.setattr(google.auth, "default", lambda **_: (StaticToken(SECRET), None))
    proxy.answer = lambda _: (401, "Invalid Credentials")
    with pytest.raises(StoreError, match="gcloud auth application-default login") as caught:
        open_store(proxied.uri)
    assert caught.value.exit_code == 74


def test_missing_credentials_say_how_to_get_some():
    """Without credentials a bucket is refused before anything else, with the command that makes some."""
    with pytest.raises(StoreError, match="gcloud auth application-default login"):
        open_store("gs://bucket")


def test_broken_credentials_are_not_printed(tmp_path, monkeypatch):
    """A file of credentials that cannot be used is not repeated in the message."""
    (tmp_path / "key.json").write_text(json.dumps({"type": "service_account", "private_key": SECRET}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(StoreError) as caught:
        open_store("gs://bucket")
    assert SECRET not in str(caught.value)


def test_missing_library_says_what_to_install(monkeypatch):
    """Where a library for buckets is not installed, the message says which."""
    monkeypatch.delitem(sys.modules, "job.storage.gcs")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MachineError, match="obstore is missing; install"):
        open_store("gs://bucket")
