"""A model hub on loopback: as much of its interface as listing, creating and committing need.

Small files come with the commit. Those that the hub would keep by their hash (`LARGE`) are put to
an address that it gives, as Git LFS does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_a_test"  # the only one that it takes
LARGE = (".safetensors", ".pt2", ".onnx")
TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/main\b")


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        url: Its address.
        files: Content by path, by repository.
        objects: Content of large files by SHA-256.
        messages: Messages of the commits.
    """

    url: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def hub(self) -> Hub:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def do_PUT(self) -> None:
        content = self._content()
        sha256 = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != sha256:
            self._answer(400, {"error": "another hash"})
            return
        self.hub.objects[sha256] = content
        self._answer(200, {})

    def do_GET(self) -> None:
        found = TREE.match(self.path)
        if found is None:
            self._answer(404, {"error": "not here"})
            return
        files = self.hub.files[found[1]]
        listed = [{"type": "file", "path": n, "size": len(c), "oid": ""} for n, c in files.items()]
        self._answer(200, listed)

    def do_POST(self) -> None:
        content = self._content()
        if self.headers.get("Authorization") not in (f"Bearer {TOKEN}", None):
            self._answer(401, {"error": "Invalid credentials"})
            return
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.files.setdefault(name, {})
            self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": "1"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            names = [each["path"] for each in json.loads(content)["files"]]
            modes = {n: "lfs" if n.endswith(LARGE) else "regular" for n in names}
            files = [{"path": n, "uploadMode": modes[n], "shouldIgnore": False} for n in names]
            self._answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            self._answer(200, {"transfer": "basic", "objects": [*map(self._place, objects)]})
        elif self.path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in content.splitlines()])
        else:
            self._answer(404, {"error": self.path})

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.hub.url}/objects/{wanted['oid']}", "header": {}}
        return {"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": upload}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        owner, name = self.path.split("/")[3:5]
        files = self.hub.files[f"{owner}/{name}"]
        for line in lines:
            of = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(of["summary"])
            elif line["key"] == "deletedFile":
                del files[of["path"]]
            elif line["key"] == "file":
                files[of["path"]] = base64.b64decode(of["content"])
            else:
                files[of["path"]] = self.hub.objects[of["oid"]]
        url = f"{self.hub.url}/{owner}/{name}/commit/{'0' * 40}"
        self._answer(200, {"commitUrl": url, "commitOid": "0" * 40, "success": True})

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, value: dict[str, Any] | list[dict[str, Any]]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def model_hub() -> Iterator[Hub]:
    """Context of a running hub."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_port}")
        server.hub = hub  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
