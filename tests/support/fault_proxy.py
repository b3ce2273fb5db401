"""A proxy before the emulator that refuses, loses, cuts or damages requests and answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from tests.support.http_server import Handler, serving


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of a client."""

    method: str
    path: str
    token: str | None
    body: bytes = b""


@dataclass
class Proxy:
    """Passes everything on, unless a test sets otherwise."""

    url: str = ""
    requests: list[Sent] = field(default_factory=list)

    answer: Callable[[Sent], tuple[int, str] | tuple[int, str, str] | None] = lambda _sent: None
    """A status, a message and perhaps a reason to answer with, instead of passing the request on."""

    alter: Callable[[Sent, bytes], bytes] = lambda _sent, body: body
    """Changes the body of a request."""

    forward: Callable[[str], str] = lambda path: path
    """Changes what is asked for."""

    host: str | None = None
    """The name that the server behind is called by; otherwise as the client calls it."""

    lose: Callable[[Sent], bool] = lambda _sent: False
    """Whether the emulator's answer gets lost: the request has taken place, and its sender does not learn of it."""

    cut: Callable[[Sent], bool] = lambda _sent: False
    """Whether the connection breaks in the middle of an answer."""

    damage: Callable[[Sent, bytes], bytes] = lambda _sent, body: body
    """Changes the body of an answer."""


@contextmanager
def running_proxy(upstream: str) -> Iterator[Proxy]:
    """Start a proxy before a server on this machine, and stop it."""
    proxy = Proxy()

    class ProxyHandler(Handler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.body()
            sent = Sent(self.command, self.path, self.headers.get("Authorization"), body)
            proxy.requests.append(sent)
            if (canned := proxy.answer(sent)) is not None:
                status, message, *reason = canned
                details = {"message": message, "reason": "".join(reason)}
                error = {"error": {"code": status, "message": message, "errors": [details]}}
                self.respond(status, json.dumps(error).encode(), {"Content-Type": "application/json"})
                return
            headers = {name.title(): value for name, value in self.headers.items()}
            headers |= {"Host": proxy.host} if proxy.host else {}
            with closing(HTTPConnection(upstream.removeprefix("http://"))) as passed_on:
                try:
                    passed_on.request(self.command, proxy.forward(self.path), proxy.alter(sent, body), headers)
                    response = passed_on.getresponse()
                    data = response.read()
                except (OSError, HTTPException):  # the emulator hung up, as after a body that was cut short
                    self.close_connection = True
                    return
            if proxy.lose(sent):
                self.close_connection = True
                return
            of_connection = {"content-length", "transfer-encoding", "connection"}
            answered = {name: value for name, value in response.headers.items() if name.lower() not in of_connection}
            if proxy.cut(sent):
                self.respond(response.status, data, answered, len(data) // 2)
                self.close_connection = True
                return
            self.respond(response.status, proxy.damage(sent, data), answered)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

    with serving(ProxyHandler) as address:
        proxy.url = f"http://{address}"
        yield proxy
