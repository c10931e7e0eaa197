"""As much of Google Cloud Storage's JSON protocol as reading takes, for one bucket `logs`: the files of a folder.

A process of its own, which prints its port: pyarrow's client may hold this interpreter while it waits for an answer.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

ROOT = Path(sys.argv[1])
OBJECTS = "/storage/v1/b/logs/o"
faults = [503, 429]


def entry(key: str) -> dict[str, str]:
    moment = "2026-11-25T10:00:00.123Z"
    numbers = {"size": str((ROOT / key).stat().st_size), "generation": "1", "metageneration": "1"}
    return {
        "kind": "storage#object",
        "name": key,
        "bucket": "logs",
        "updated": moment,
        "timeCreated": moment,
        **numbers,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked, path = dict(parse_qsl(parts.query)), unquote(parts.path)
        if faults and path.startswith(OBJECTS):
            self._answer(faults.pop(), b"{}")
        elif path == OBJECTS:
            keys = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file())
            found = [entry(k) for k in keys if k.startswith(asked.get("prefix", ""))]
            self._answer(200, json.dumps({"kind": "storage#objects", "items": found}).encode())
        elif (ROOT / path.removeprefix(f"{OBJECTS}/")).is_file():
            key = path.removeprefix(f"{OBJECTS}/")
            if asked.get("alt") != "media":
                self._answer(200, json.dumps(entry(key)).encode())
                return
            body = (ROOT / key).read_bytes()
            wanted = self.headers.get("Range")
            if wanted is None:
                self._answer(200, body)
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            self._answer(206, body[int(first) : int(last) + 1 if last else None])
        else:
            self._answer(404, b'{"error": {"code": 404, "message": "no"}}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("x-goog-generation", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
