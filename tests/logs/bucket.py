"""A bucket on moto's S3 server, and a proxy before it that breaks what it is told to."""

from __future__ import annotations

import http.client
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

# What the proxy does instead of passing a request on: an S3 error, or a connection that ends in the middle.
Fault = tuple[int, str] | str | None
Rule = Callable[[str, str], Fault]
NUMBERS = count(1)
SECRET = "s3cr3t-" + "k" * 33


@dataclass
class Bucket:
    """client: boto3's; name: of an empty bucket of its own."""

    client: Any
    name: str

    def put(self, key: str, content: bytes | Path) -> str:
        """Returns the address."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return f"s3://{self.name}/{key}"

    def put_folder(self, folder: Path, prefix: str) -> str:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder)}", file)
        return f"s3://{self.name}/{prefix}"

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)


@contextmanager
def server() -> Iterator[str]:
    """The address of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        yield f"http://127.0.0.1:{moto.get_host_and_port()[1]}"
    finally:
        moto.stop()


def make_bucket(endpoint: str) -> Bucket:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key=SECRET
    )
    name = f"logs-{next(NUMBERS)}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name)


@dataclass
class Proxy:
    """requests: (method, path with query) of all that came, in order; rule: what to break."""

    endpoint: str
    rule: Rule
    requests: list[tuple[str, str]] = field(default_factory=list)

    def count(self, part: str) -> int:
        return sum(part in path for _, path in self.requests)


@contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    host = endpoint.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            proxy.requests.append((self.command, self.path))
            fault = proxy.rule(self.command, self.path)
            if isinstance(fault, tuple):
                status, code = fault
                body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
                self._answer(status, {"Content-Type": "application/xml"}, body)
                return
            there = http.client.HTTPConnection(host)
            there.request(self.command, self.path, headers=dict(self.headers))
            answer = there.getresponse()
            body = answer.read()
            there.close()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in ("content-length", "transfer-encoding")}
            self._answer(answer.status, kept, body, cut=fault == "cut")

        do_HEAD = do_GET

        def _answer(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"http://127.0.0.1:{web.server_port}", lambda method, path: None)
    Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield proxy
    finally:
        web.shutdown()
        web.server_close()
