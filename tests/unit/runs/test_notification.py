"""Notifications to a real HTTP server: delivered once, bounded, and with the address kept secret."""

import socket
import threading
from datetime import datetime

import pytest

from job.errors import UsageError
from job.runs import notification
from job.runs.notification import NotifyOption, Webhook
from tests.support.webhook_server import SECRET, running_webhook

EVENT = {"event": "end", "run": "zebra", "reason": "finished", "used_usd": None}


@pytest.fixture
def server():
    """A webhook that takes everything."""
    with running_webhook() as server:
        yield server


def warnings(caplog):
    """Return the warnings, none of which shows the address."""
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert SECRET not in caplog.text
    return found


def test_an_event_is_posted_as_json_without_credentials(server, caplog, monkeypatch, tmp_path):
    """The server gets the event with schema and time as JSON, and nothing that this machine keeps for its host."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    Webhook.parse(server.url).send(EVENT)
    (got,), (headers,) = server.got, server.headers
    assert got | {"at": ""} == {"schema": 1, "at": "", **EVENT}
    assert datetime.fromisoformat(got["at"]).tzinfo is not None
    assert headers["Content-Type"] == "application/json"
    assert not {"Authorization", "Cookie"} & headers.keys()
    assert warnings(caplog) == []


def test_a_long_text_is_cut(server):
    """No message of an error makes a notification that a server would refuse for its size."""
    Webhook.parse(server.url).send({"message": "x" * 10**6})
    assert len(server.got[0]["message"]) == notification.MAX_LENGTH


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_server_that_refuses_is_one_warning(server, caplog, status):
    """An answer that is no success is one warning with its status, and a redirect is not followed."""
    server.status = status
    Webhook.parse(server.url).send(EVENT)
    (warning,) = warnings(caplog)
    assert warning.startswith(
        f"notification to 127.0.0.1: was not delivered, it answered {status}; the run is not affected"
    )
    assert server.paths == [f"/hooks/{SECRET}"]


def test_a_server_that_never_answers_is_one_warning(server, caplog):
    """A server that holds the request open is left after the limit, while it still holds it."""
    server.answers.clear()
    Webhook.parse(server.url).send(EVENT, 0.2)
    assert not server.answers.is_set()
    (warning,) = warnings(caplog)
    assert warning.startswith("notification to 127.0.0.1: was not delivered, ")


def test_an_answer_without_end_has_the_same_limit(caplog):
    """A server that sends a header before each read times out is left after the limit as well."""
    over = threading.Event()

    def answer():
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not over.wait(0.05):
                connection.sendall(b"X: y\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        Webhook.parse(f"http://127.0.0.1:{listening.getsockname()[1]}/{SECRET}").send(EVENT, 0.5)
        over.set()
        thread.join()
    (warning,) = warnings(caplog)
    assert warning.startswith(
        "notification to 127.0.0.1: was not delivered, it did not answer within 0.5 s; the run is not affected"
    )


def test_a_server_that_is_not_there_is_one_warning(caplog):
    """A refused connection is a warning with the system's words."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/{SECRET}"
    Webhook.parse(url).send(EVENT)
    (warning,) = warnings(caplog)
    assert "Connection refused" in warning


def test_nothing_is_sent_when_no_time_is_left(server, caplog):
    """After the deadline of a notice there is a warning, and no request."""
    Webhook.parse(server.url).send(EVENT, -1.0)
    assert (server.got, len(warnings(caplog))) == ([], 1)


@pytest.mark.parametrize(
    "text",
    [
        f"ftp://host/{SECRET}", f"file:///{SECRET}", SECRET, f"https:///{SECRET}", f"https://me:{SECRET}@host/",
        f"https://host:port/{SECRET}", f"https://host/{SECRET} x", f"https://host/{SECRET}\n", f"https://hôst/{SECRET}",
    ],
)  # fmt: skip
def test_another_address_is_refused_and_not_shown(text, monkeypatch):
    """Only http and https without a user are taken; the message of a refusal keeps the address secret."""
    with pytest.raises(UsageError, match="--notify: must be http") as raised:
        NotifyOption.parse({"notify": text})
    assert SECRET not in str(raised.value)
    monkeypatch.setenv("JOB_NOTIFY", text)
    with pytest.raises(UsageError, match="JOB_NOTIFY") as raised:
        NotifyOption.parse({})
    assert SECRET not in str(raised.value)


def test_the_address_comes_from_a_flag_or_the_environment(monkeypatch):
    """The flag wins over `JOB_NOTIFY`, an empty variable is none, and no representation shows the address."""
    assert NotifyOption.parse({}).notify is None
    monkeypatch.setenv("JOB_NOTIFY", "")
    assert NotifyOption.parse({}).notify is None
    monkeypatch.setenv("JOB_NOTIFY", f"https://one/{SECRET}")
    assert NotifyOption.parse({}).notify.url == f"https://one/{SECRET}"
    given = NotifyOption.parse({"notify": f"https://two/{SECRET}"})
    assert given.notify.host == "two"
    assert SECRET not in f"{given!r} {given}"
