"""A local stand-in for the Hugging Face Hub: the requests that create, fill and read a repository."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandInHub(ThreadingHTTPServer):
    """Repositories in memory, each with one commit."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.requests: list[str] = []
        #: Content lengths to report instead of the true ones, by file
        self.told_lengths: dict[str, int | None] = {}
        #: Status of every answer, or None for the proper answers
        self.status: int | None = None

    @property
    def endpoint(self) -> str:
        """Address"""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(self.path).split("?")[0]
        self.server.requests.append(f"POST {path}")
        if self.server.status is not None:
            return self._json({"error": "not today"}, self.server.status)
        if path == "/api/repos/create":
            given = json.loads(body)
            repo = "/".join(part for part in (given.get("organization"), given["name"]) if part)
            self.server.files.setdefault(repo, {})
            # older clients send "private"
            self.server.private[repo] = given.get("private") is True or given.get("visibility") == "private"
            return self._json({"url": f"{self.server.endpoint}/{repo}", "name": repo, "id": "1"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/(.+?)/(preupload|commit)/(\w+)", path)
        if found is None or found[1] not in self.server.files:
            return self._json({"error": "not found"}, 404)
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._json({"files": files})
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "header":
                self.server.messages.append(entry["value"]["summary"])
            else:
                assert entry["key"] == "file" and entry["value"]["encoding"] == "base64"
                self.server.files[found[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        url = f"{self.server.endpoint}/{found[1]}/commit/{_COMMIT}"
        return self._json({"success": True, "commitOid": _COMMIT, "commitUrl": url})

    def do_HEAD(self) -> None:
        self._file(with_body=False)

    def do_GET(self) -> None:
        self._file(with_body=True)

    def _file(self, with_body: bool) -> None:
        path = unquote(self.path).split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        found = re.fullmatch(rf"/(.+)/resolve/(main|{_COMMIT})/(.+)", path)
        repo = self.server.files.get(found[1]) if found else None
        content = repo.get(found[3]) if found and repo else None
        if content is None or self.server.status is not None:
            self.send_response(self.server.status or 404)
            if self.server.status is None:
                self.send_header("X-Error-Code", "EntryNotFound" if repo is not None else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        assert found is not None
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", _COMMIT)
        length = self.server.told_lengths.get(found[3], len(content))
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Run a server in a thread."""
    server = StandInHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
