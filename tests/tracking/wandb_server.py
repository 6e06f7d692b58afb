"""As much of a Weights & Biases server as wandb 0.31 needs to upload runs: GraphQL, the file stream, files, artifacts.

Everything it was sent is kept and can be read from `runs`, `artifacts` and `alerts`. It can also accept and never
answer (`hang`), answer 401 (`refuse`), be gone (`die`), and come back (`revive`).
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from wandb_server_artifacts import ENTITY, Artifacts


class WandbServer(Artifacts):
    """Start with `with WandbServer() as server:`; point WANDB_BASE_URL at `server.url`."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.operations: list[str] = []
        self.places: set[str] = set()
        self.unknown: list[str] = []
        self.behaviour = "answer"
        self.seconds_per_file = 0.0
        self.failing: set[str] = set()
        self._released = threading.Event()
        self._lock = threading.RLock()
        self._http = self._listen(0)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def _listen(self, port: int) -> _QuietServer:
        http = _QuietServer(("127.0.0.1", port), type("Handler", (_Handler,), {"fake": self}))
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return http

    def __enter__(self) -> WandbServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.die()

    def die(self) -> None:
        """Refuse every connection from here on, and drop those that are open."""
        if self.behaviour != "dead":
            self.behaviour = "dead"
            self._released.set()
            self._http.shutdown()
            self._http.server_close()

    def revive(self) -> None:
        """Answer again, at the same address and with everything it had."""
        self._released.set()
        if self.behaviour == "dead":
            self._http = self._listen(int(self.url.rpartition(":")[2]))
        self._released.clear()
        self.behaviour = "answer"

    def hang(self) -> None:
        """Accept, and never answer, from here on."""
        self.behaviour = "hang"

    def refuse(self) -> None:
        """Answer 401 from here on: the key is no good."""
        self.behaviour = "refuse"

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """The points of a run in order, without W&B's own keys."""
        lines = self.runs[run_id]["lines"]
        rows = [json.loads(lines[offset]) for offset in sorted(lines)]
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]

    def points(self, run_id: str) -> list[tuple[Any, ...]]:
        """Every number of a run's history, as often as it is there: (axis, its value, key, value)."""
        found = []
        for row in self.history(run_id):
            (axis,) = {"round", "global_step"} & row.keys()
            found += [(axis, row[axis], key, value) for key, value in row.items() if isinstance(value, int | float)]
        return sorted(point for point in found if point[2] != point[0])

    def tables(self, run_id: str) -> list[tuple[str, int]]:
        """The tables in a run's history, as often as they are there; each was uploaded, too."""
        found = []
        for row in self.history(run_id):
            for key, value in row.items():
                if isinstance(value, dict) and value["_type"] == "table-file":
                    assert json.loads(self.files[f"{run_id}/{value['path']}"])["data"]
                    found.append((key, row["round"]))
        return sorted(found)

    def summary(self, run_id: str) -> dict[str, Any]:
        values = self.runs[run_id]["summary"]
        return {key: value for key, value in values.items() if not key.startswith("_")}

    # What handlers call

    def wait_if_hanging(self) -> bool:
        """Whether the request is to be answered."""
        if self.behaviour == "hang":
            self._released.wait()
        return self.behaviour != "dead"

    def graphql(self, operation: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.operations.append(operation)
            answer = getattr(self, f"_on_{operation}", None)
            if answer is None:
                self.unknown.append(f"{operation}: {query} {variables}")
                return {}
            try:
                data: dict[str, Any] = answer(variables)
            except Exception as error:  # a test looks at `unknown`, an HTTP client would only try again
                self.unknown.append(f"{operation}: {error!r} {variables}")
                return {}
            return data

    def stream(self, run_id: str, body: dict[str, Any]) -> None:
        """What the file stream brings: lines of history from an offset on, the summary, the end."""
        with self._lock:
            run = self.runs[run_id]
            history = body.get("files", {}).get("wandb-history.jsonl")
            for number, line in enumerate(history["content"] if history else ()):
                run["lines"][history["offset"] + number] = line
            if summary := body.get("files", {}).get("wandb-summary.json"):
                run["summary"] = json.loads(summary["content"][-1])
            if "complete" in body:
                run["complete"] = body["complete"]

    def _bucket(self, run: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": run["id"],
            "name": run["id"],
            "displayName": run["name"],
            "description": None,
            "config": json.dumps({key: {"value": value} for key, value in run["config"].items()}),
            "sweepName": run["sweep"],
            "project": {"id": "1", "name": run["project"], "entity": {"id": "1", "name": ENTITY}},
            "historyLineCount": len(run["lines"]),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([run["lines"][max(run["lines"])]] if run["lines"] else []),
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(run["summary"]),
            "tags": run["tags"],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _on_Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {
            "viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "a@b.c", "flags": "{}", "teams": teams}
        }

    def _on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(variables["name"])
        if run is None:
            return {"model": None}
        entity = {"id": "1", "name": ENTITY}
        return {"model": {"id": "1", "name": run["project"], "entity": entity, "bucket": self._bucket(run)}}

    def _on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = variables["name"]
        is_new = name not in self.runs
        run = self.runs.setdefault(
            name,
            {
                "id": name,
                "name": None,
                "config": {},
                "sweep": None,
                "project": variables["project"],
                "tags": [],
                "group": None,
                "job_type": None,
                "host": None,
                "program": None,
                "lines": {},
                "summary": {},
                "complete": None,
            },
        )
        fields = {
            "displayName": "name",
            "groupName": "group",
            "jobType": "job_type",
            "sweep": "sweep",
            "tags": "tags",
            "host": "host",
            "program": "program",
        }
        run |= {own: variables[their] for their, own in fields.items() if variables.get(their)}
        if variables.get("config"):
            run["config"] = {key: one["value"] for key, one in json.loads(variables["config"]).items()}
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": is_new}}

    def _on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        folder = f"{self.url}/storage/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{folder}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _on_NotifyScriptableRunAlert(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        known = {(one["runName"], one["title"]) for one in self.alerts}
        if variables["waitDuration"] < 3_600_000 or (variables["runName"], variables["title"]) not in known:
            self.alerts.append(variables)  # else it came again too soon
        return {"notifyScriptableRunAlert": {"success": True}}

    def _on_ServerFeaturesQuery(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of the server's business."""


class _Handler(BaseHTTPRequestHandler):
    fake: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.fake.wait_if_hanging():
            self.close_connection = True
            return
        if self.fake.behaviour == "refuse":
            self._send(401, {"errors": [{"message": "permission denied"}]})
            return
        place = self.path.split("?")[0]
        self.fake.places.add(place)
        data: dict[str, Any] = {}
        if place == "/graphql":
            asked = json.loads(body)
            operation = asked.get("operationName") or asked["query"].split("(")[0].split("{")[0].split()[-1]
            if operation in self.fake.failing:
                self._send(400, {"errors": [{"message": "not today"}]})
                return
            data = {"data": self.fake.graphql(operation, asked["query"], asked.get("variables") or {})}
        elif place.endswith("/file_stream"):
            self.fake.stream(place.split("/")[-2], json.loads(body))
        elif place.startswith("/storage/") and self.command == "PUT":
            time.sleep(self.fake.seconds_per_file)
            self.fake.files[place.removeprefix("/storage/")] = body
        elif place.startswith("/storage/"):
            self._send_bytes(200, self.fake.files[place.removeprefix("/storage/")])
            return
        self._send(200, data)

    do_GET = do_POST = do_PUT = do_HEAD = _answer  # noqa: N815

    def _send(self, status: int, data: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(data).encode())

    def _send_bytes(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
