"""A server of Weights & Biases, as far as its client asks: real HTTP; keeps what it is sent, or fails as set."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.http_server import Handler, serving

ACCEPTS, HANGS, FAILS = "accepts", "hangs", "answers 500"

KEY = "0123456789" * 4


class FakeWandb:
    """The runs, artifacts and files that the server was sent."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.url = ""
        self.runs: dict[str, dict[str, Any]] = {}
        """By id: ``config``, ``summary`` and ``history`` (rows, each in the place that the client named)."""

        self.asked = threading.Event()
        """Set by the first request."""

        self.over = threading.Event()
        """Ends requests that hang."""

        self.uploads: dict[str, bytes] = {}
        """By path."""

        self.artifacts: list[dict[str, Any]] = []

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead the client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}

    def query(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer GraphQL, by the names of the fields that are asked for."""
        name, answer = variables.get("name"), dict[str, Any]()
        if "viewer" in query:
            answer["viewer"] = {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        if "query RunResumeStatus" in query:
            answer["model"] = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": self.known(name)}
        if "upsertBucket" in query:
            run = self.run(name or variables.get("id"))
            run["config"] |= json.loads(variables.get("config") or "{}")
            bucket = {"id": name, "name": name, "displayName": variables.get("displayName"), "config": "{}"}
            bucket |= {"project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}, "historyLineCount": 0}
            answer["upsertBucket"] = {"bucket": bucket, "inserted": True}
        if "createRunFiles" in query:
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in variables["files"]]
            answer["createRunFiles"] = {"runID": variables["run"], "uploadHeaders": [], "files": files}
        if "createArtifact(" in query:
            self.artifacts.append(variables)
            artifact = {"id": "artifact", "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
            answer["createArtifact"] = {"artifact": artifact}
        if "createArtifactManifest(" in query:
            file = {"id": "f", "name": "manifest", "displayName": "manifest", "uploadHeaders": []}
            file["uploadUrl"] = f"{self.url}/upload/manifest"
            answer["createArtifactManifest"] = {"artifactManifest": {"id": "manifest", "file": file}}
        if "createArtifactFiles(" in query:
            specs = variables["input"]["artifactFiles"] if "input" in variables else variables["artifactFiles"]
            nodes = [self._file(spec) for spec in specs]
            answer["createArtifactFiles"] = {"files": {"edges": [{"node": node} for node in nodes]}}
        if "commitArtifact(" in query:
            answer["commitArtifact"] = {"artifact": {"id": "artifact", "digest": "d"}}
        if "project(" in query:
            answer["project"] = {"artifact": None}
        return answer

    def _file(self, spec: dict[str, Any]) -> dict[str, Any]:
        name = spec["name"]
        url = f"{self.url}/upload/{name}"
        artifact = {"id": "artifact"}
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "uploadUrl": url,
            "uploadHeaders": [],
            "artifact": artifact,
        } | {"storagePath": name, "uploadMultipartUrls": None}

    def run(self, name: str) -> dict[str, Any]:
        """Return a run, made if it is new."""
        return self.runs.setdefault(name, {"config": {}, "summary": {}, "history": {}})

    def known(self, name: str) -> dict[str, Any] | None:
        """Return the state of a run for a client that resumes it."""
        if name not in self.runs:
            return None
        run = self.runs[name]
        tail = [run["history"][max(run["history"])]] if run["history"] else []
        counts = dict.fromkeys(("logLineCount", "eventsLineCount"), 0) | {"historyLineCount": len(run["history"])}
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "summaryMetrics": json.dumps(run["summary"]),
            "historyTail": json.dumps([json.dumps(row) for row in tail]),
            "eventsTail": "[]",
            "config": json.dumps(run["config"]),
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
            **counts,
        }

    def stream(self, name: str, files: dict[str, Any]) -> None:
        """Take lines of a run."""
        run = self.run(name)
        history, summary = files.get("wandb-history.jsonl"), files.get("wandb-summary.json")
        for place, line in enumerate(history["content"] if history else [], start=(history or {}).get("offset", 0)):
            run["history"][place] = json.loads(line)
        for line in summary["content"] if summary else []:
            run["summary"] = json.loads(line)


class FakeHandler(Handler):
    """One request of a client."""

    protocol_version = "HTTP/1.1"
    fake: FakeWandb

    def parse_request(self) -> bool:
        """Take every method for one."""
        understood = super().parse_request()
        self.command = "ANY"
        return understood

    def do_ANY(self) -> None:
        """Keep what is sent, or fail."""
        fake, body = self.fake, self.body()
        fake.asked.set()
        if fake.behaviour == HANGS:
            fake.over.wait()
        elif fake.behaviour == FAILS:
            self._answer(500, {"errors": [{"message": "internal server error"}]})
        else:
            self._answer(200, self._taken(fake, body))

    def _taken(self, fake: FakeWandb, body: bytes) -> dict[str, Any]:
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/graphql":
            asked = json.loads(body)
            return {"data": fake.query(asked["query"], asked.get("variables") or {})}
        if self.path.endswith("/file_stream"):
            fake.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
        elif self.path.startswith("/upload/"):
            fake.uploads[self.path.removeprefix("/upload/")] = body
        return {}

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        self.respond(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


@contextmanager
def running_wandb_server(behaviour: str = ACCEPTS) -> Iterator[FakeWandb]:
    """Serve on a free port of this machine."""
    fake = FakeWandb(behaviour)
    with serving(type("WandbHandler", (FakeHandler,), {"fake": fake})) as address:
        fake.url = f"http://{address}"
        try:
            yield fake
        finally:
            fake.over.set()
