"""What only a bucket can do wrong: lost answers, refusals, damage on the way."""

import json
import sys

import google.auth
import pytest
from google.auth.credentials import Credentials

from job.errors import (
    CorruptObjectError,
    MachineError,
    ObjectNotFoundError,
    PreconditionError,
    StoreError,
    TransientStoreError,
)
from job.store import StoredObject, open_store
from job.store import gcs as module

SECRET = "ya29.SECRET"  # noqa: S105 -- looks like one, and must not be seen

OPERATIONS = {
    "put": lambda store, _: store.put("other", b"x"),
    "overwrite": lambda store, _: store.put("key", b"x", overwrite=True),
    "list": lambda store, _: store.list(),
    "stat": lambda store, _: store.stat("key"),
    "delete": lambda store, _: store.delete("key"),
    "read": lambda store, _: store.read("key"),
    "get": lambda store, folder: store.get("key", folder / "target"),
    "get_many": lambda store, folder: store.get_many([(LISTED[0], folder / "target")]),
    "put_many": lambda store, folder: store.put_many([(folder / "source", "key")]),
}

LISTED = []


@pytest.fixture(params=OPERATIONS)
def operation(request, proxy, proxied, tmp_path):
    """Prepare each operation on a bucket that has an object under ``key``."""
    LISTED[:] = [proxied.put("key", b"wild")]
    (tmp_path / "source").write_bytes(b"x")
    proxy.requests.clear()
    return lambda store: OPERATIONS[request.param](store, tmp_path)


def first_upload(proxy):
    """Tell of a request whether it is the first upload."""
    return lambda sent: sent.method == "POST" and [each.method for each in proxy.requests].count("POST") == 1


def is_download(sent):
    """Tell of a request whether it fetches the bytes of an object."""
    return sent.method == "GET" and "/storage/v1/" not in sent.path


def test_own_success_whose_answer_was_lost_is_recognised(proxy, proxied):
    """A create-only put that took place and whose answer was lost is repeated, refused and recognised as done."""
    proxy.lose = first_upload(proxy)
    stored = proxied.put("key", b"mine")
    assert [sent.method for sent in proxy.requests] == ["POST", "POST", "GET"]
    assert proxied.read("key") == b"mine"
    assert proxied.stat("key") == stored


def test_own_swap_whose_answer_was_lost_is_recognised(proxy, proxied):
    """A put bound to a version that took place and whose answer was lost is recognised as done."""
    before = proxied.put("key", b"old")
    proxy.requests.clear()
    proxy.lose = first_upload(proxy)
    assert proxied.put("key", b"mine", if_version=before.version) == proxied.stat("key")


def test_lost_answer_does_not_hide_a_rival(proxy, proxied):
    """A put whose answer was lost fails if the object is somebody else's."""
    proxied.put("key", b"theirs")
    proxy.requests.clear()
    proxy.lose = first_upload(proxy)
    with pytest.raises(PreconditionError):
        proxied.put("key", b"mine")
    assert proxied.read("key") == b"theirs"


def test_large_files_are_created_under_the_precondition(proxy, proxied, tmp_path):
    """A file that goes in several requests is bound to the precondition, which the emulator itself does not honour."""
    (tmp_path / "large").write_bytes(bytes(9 << 20))
    proxied.put("key", tmp_path / "large")
    assert "uploadType=resumable" in proxy.requests[0].path
    assert "ifGenerationMatch=0" in proxy.requests[0].path


def test_delete_is_bound_to_the_version(proxy, proxied):
    """A delete of a version says so to the bucket, which the emulator does not honour, and heeds the refusal."""
    proxied.put("key", b"x")
    proxy.answer = lambda sent: (412, "conditionNotMet") if "ifGenerationMatch=7" in sent.path else None
    with pytest.raises(PreconditionError):
        proxied.delete("key", if_version="7")


def test_missing_permission_says_which_role(proxy, proxied, operation):
    """Every operation without permission ends with the role to grant, and tells no address."""
    proxy.answer = lambda _: (403, "me@x does not have storage.objects.get access.")
    with pytest.raises(StoreError, match=r"permission denied.*roles/storage\.objectUser") as caught:
        operation(proxied)
    assert caught.value.exit_code == 74
    assert proxy.url not in str(caught.value)


def test_refusals_tell_what_google_said(proxy, proxied):
    """What Google says about a refusal is passed on."""
    proxy.answer = lambda _: (403, "me@x does not have storage.objects.create access.")
    with pytest.raises(StoreError, match=r"permission denied \(me@x does not have storage.objects.create access\)"):
        proxied.put("key", b"x")


def test_refusal_is_not_repeated(proxy, proxied, operation):
    """Every operation that the bucket refuses for good ends at once, and is not called transient."""
    proxy.answer = lambda _: (400, "Invalid something.")
    with pytest.raises(StoreError, match="refused") as caught:
        operation(proxied)
    assert not isinstance(caught.value, TransientStoreError)


def test_failing_bucket_is_transient(proxy, proxied, operation, monkeypatch):
    """Every operation that fails until the deadline can be tried again later, and tells no address."""
    monkeypatch.setattr(module, "DEADLINE_S", 0)
    store = open_store(proxied.uri)
    proxy.answer = lambda _: (503, "backend")
    with pytest.raises(TransientStoreError, match="kept failing") as caught:
        operation(store)
    assert caught.value.exit_code == 75
    assert proxy.url not in str(caught.value)


def test_passing_failure_is_not_noticed(proxy, proxied, operation):
    """Every operation is repeated if its first request fails."""
    proxy.answer = lambda _: (503, "backend") if len(proxy.requests) == 1 else None
    operation(proxied)


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


@pytest.mark.parametrize("damaged", ["get", "read", "get_many"])
def test_damage_on_the_way_is_noticed(proxy, proxied, tmp_path, damaged):
    """A byte that changes on the way ends every kind of fetching, and leaves no file."""
    stored = proxied.put("key", b"wild")
    proxy.damage = lambda sent, body: b"mild" if is_download(sent) else body
    target = tmp_path / "folder" / "target"
    with pytest.raises(CorruptObjectError):
        {
            "get": lambda: proxied.get("key", target),
            "read": lambda: proxied.read("key"),
            "get_many": lambda: proxied.get_many([(stored, target)]),
        }[damaged]()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


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


def test_both_clients_use_the_same_credentials(proxy, monkeypatch, tmp_path):
    """Requests of both libraries carry the token of Google's default credentials, and no message repeats it."""

    class Known(Credentials):
        def refresh(self, request):  # noqa: ARG002 -- as it is called
            self.token = SECRET

    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", proxy.url)
    monkeypatch.setattr(google.auth, "default", lambda **_: (Known(), None))
    proxy.answer = lambda sent: (200, "") if "/storage/v1/" in sent.path else (403, f"Bearer {SECRET[:4]}")
    store = open_store("gs://bucket")
    with pytest.raises(StoreError) as caught:
        store.get_many([(StoredObject("key", 4, "1", "AAAAAA=="), tmp_path / "target")])
    assert any(is_download(sent) for sent in proxy.requests)
    assert {sent.token for sent in proxy.requests} == {f"Bearer {SECRET}"}
    assert SECRET not in str(caught.value)


def test_missing_credentials_say_how_to_get_some():
    """Without credentials a bucket is refused before anything else, with the command that makes some."""
    with pytest.raises(StoreError, match="gcloud auth application-default login"):
        open_store("gs://bucket")


def test_broken_credentials_are_not_told(tmp_path, monkeypatch):
    """A file of credentials that cannot be used is not repeated in the message."""
    (tmp_path / "key.json").write_text(json.dumps({"type": "service_account", "private_key": SECRET}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(StoreError) as caught:
        open_store("gs://bucket")
    assert SECRET not in str(caught.value)


def test_missing_library_says_what_to_install(monkeypatch):
    """Where a library for buckets is not installed, the message says which."""
    monkeypatch.delitem(sys.modules, "job.store.gcs")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MachineError, match="obstore is missing; install"):
        open_store("gs://bucket")
