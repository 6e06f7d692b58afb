"""A Hugging Face hub for data sets on loopback: as much of its HTTP API as creating one and uploading a folder take."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


@dataclass
class Hub:
    """Data sets by name; `private` says which are. Accepts one token; `owner` is whom it belongs to."""

    url: str = ""
    token: str = "hf_of_the_test"
    owner: str = "me"
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: int = 0


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status >= 400:
            self.send_header("X-Error-Message", str(data.get("error")))
        self.end_headers()
        self.wfile.write(body)

    def _is_let_in(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._answer({"error": "Invalid username or password."}, 401)
        return False

    def do_GET(self) -> None:
        if not self._is_let_in():
            return
        kind, _, rest = self.path.removeprefix("/api/").partition("/")
        name = "/".join(rest.split("?")[0].split("/")[:2])
        if kind != "datasets" or name not in self.hub.files:
            self._answer({"error": "Repository not found"}, 404)
            return
        files = self.hub.files[name]
        if "/tree/" in rest:
            entries = [{"type": "file", "path": one, "size": len(data), "oid": "0"} for one, data in files.items()]
            self._answer(entries)
            return
        siblings = [{"rfilename": one} for one in files]
        self._answer({"id": name, "sha": "0" * 40, "private": self.hub.private[name], "siblings": siblings})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._is_let_in():
            return
        path = self.path.split("?")[0].removeprefix("/api/")
        if path == "repos/create":
            self._create(json.loads(body))
        elif path == "validate-yaml":
            self._validate(json.loads(body)["content"])
        elif "/preupload/" in path:
            named = [one["path"] for one in json.loads(body)["files"]]
            ways = [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in named]
            self._answer({"files": ways})
        elif "/commit/" in path:
            self._commit(path.removeprefix("datasets/").split("/commit/")[0], body)
        else:
            self._answer({"error": f"unknown: {path}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or self.hub.owner}/{asked['name']}"
        url = f"{self.hub.url}/datasets/{name}"
        if not name.startswith(f"{self.hub.owner}/"):
            self._answer({"error": "You don't have the rights to create a dataset under this namespace"}, 403)
        elif name in self.hub.files:
            self._answer({"error": "You already created this dataset repo", "url": url}, 409)
        else:
            self.hub.files[name] = {".gitattributes": b""}
            private = asked.get("private") or asked.get("visibility") == "private"
            self.hub.private[name] = bool(private)
            self._answer({"url": url, "name": name, "id": name})

    def _validate(self, card: str) -> None:
        data = yaml.safe_load(card.split("---")[1])
        errors = []
        if data.get("license") not in (None, "apache-2.0", "mit", "other"):
            errors = [{"message": f'"license" must be one of [apache-2.0, ...], not {data["license"]}'}]
        self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.hub.files[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                del self.hub.files[name][entry["value"]["path"]]
        self.hub.commits += 1
        url = f"{self.hub.url}/datasets/{name}/commit/{'0' * 40}"
        self._answer({"commitUrl": url, "commitOid": "0" * 40, "success": True})


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
