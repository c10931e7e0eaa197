"""Google Cloud Storage and HDFS, through the filesystems that come with pyarrow.

Neither tells an ETag here, so an object's version is its time of change, looked at before it is read and again after
its last range. Credentials: GOOGLE_APPLICATION_CREDENTIALS or the machine's account; for HDFS a Hadoop installation
(HADOOP_HOME, CLASSPATH), its configuration and its Kerberos ticket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock
from typing import Any, Literal

from bidsim.errors import LogError
from bidsim.logs.retrying import retrying
from bidsim.logs.stores import CHANGED, GONE, StoredObject, denied

WHERE = {
    "gs": "credentials come from the usual environment: GOOGLE_APPLICATION_CREDENTIALS, or the machine's account",
    "hdfs": "credentials come from the usual environment: the Kerberos ticket, or HADOOP_USER_NAME",
}
# What Google says where there are no credentials: it looks for a machine of its own that would have some.
NO_TOKEN = "Could not create a OAuth2 access token"
REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "FORBIDDEN", "AccessControlException", "Permission denied")
LASTING = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED")


@dataclass
class ArrowStore:
    """One bucket, or one HDFS. filesystem: another one with the same keys, for tests."""

    scheme: Literal["gs", "hdfs"]
    place: str
    filesystem: Any = field(default=None, repr=False, compare=False)
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"scheme": self.scheme, "place": self.place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["scheme"], state["place"])  # type: ignore[misc]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        from pyarrow import fs

        folder = prefix.rpartition("/")[0]

        def entries() -> Any:
            selector = fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True)
            return self._open().get_file_info(selector)

        for info in self._call(entries, "listing", self._url(prefix)):
            if info.type == fs.FileType.File:
                thing = self._stored(info)
                if thing.key.startswith(prefix):
                    yield thing

    def find(self, key: str) -> StoredObject | None:
        from pyarrow import fs

        if not key or key.endswith("/"):
            return None
        info = self._call(lambda: self._open().get_file_info(self._path(key)), "listing", self._url(key))
        return self._stored(info) if info.type == fs.FileType.File else None

    def read(self, thing: StoredObject, start: int, length: int) -> bytes:
        if length <= 0:
            return b""

        def get() -> tuple[Any, Any]:
            with self._open().open_input_file(self._path(thing.key)) as file:
                body = file.read_at(length, start)
            return body, self._open().get_file_info(self._path(thing.key))

        body, info = self._call(get, "reading", thing.url)
        if str(info.mtime_ns) != thing.version or info.size != thing.size or len(body) != length:
            raise LogError(CHANGED, file=thing.url)
        return bytes(body)

    def _stored(self, info: Any) -> StoredObject:
        key = info.path.removeprefix(self._path("")) if self.scheme == "gs" else info.path.lstrip("/")
        return StoredObject(self._url(key), key, int(info.size), str(info.mtime_ns))

    def _url(self, key: str) -> str:
        return f"{self.scheme}://{self.place}/{key}"

    def _path(self, key: str) -> str:
        return f"{self.place}/{key}" if self.scheme == "gs" else f"/{key}"

    def _open(self) -> Any:
        with self._lock:
            if self.filesystem is None:
                self.filesystem = self._connect()
            return self.filesystem

    def _connect(self) -> Any:
        try:
            if self.scheme == "gs":
                from pyarrow.fs import GcsFileSystem

                # Trying again is `retrying`'s; with more time here a machine without credentials waits for minutes.
                return GcsFileSystem(retry_time_limit=timedelta(seconds=1))
            from pyarrow.fs import HadoopFileSystem
        except ImportError:
            raise LogError(f"this build of pyarrow can't read {self.scheme}://", file=self._url("")) from None
        host, _, port = self.place.partition(":")
        if port and not port.isdigit():
            raise LogError("the port of the name node is no number", file=self._url(""))
        try:
            return HadoopFileSystem(host or "default", int(port) if port else 0)
        except OSError as error:
            missing = "libhdfs" in str(error) or "libjvm" in str(error)
            why = (
                "its native library was not found; set HADOOP_HOME, JAVA_HOME and CLASSPATH" if missing else "no answer"
            )
            raise LogError(f"HDFS can't be reached: {why}", file=self._url("")) from None

    def _call(self, call: Any, what: str, url: str) -> Any:
        import pyarrow as pa

        try:
            return retrying(call, _transient)
        except FileNotFoundError:
            raise LogError(GONE, file=url) from None
        except (OSError, pa.ArrowException) as error:
            if _refused(error):
                raise denied(what, url, WHERE[self.scheme]) from None
            if NO_TOKEN in str(error):
                raise LogError(f"no credentials were found that can be used; {WHERE[self.scheme]}", file=url) from None
            often = " again and again" if _transient(error) else ""
            raise LogError(
                f"{what} failed{often} ({type(error).__name__}); check the network and the address", file=url
            ) from None


def _refused(error: Exception) -> bool:
    return isinstance(error, PermissionError) or any(word in str(error) for word in REFUSALS)


def _transient(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) or not isinstance(error, OSError):
        return False
    return not _refused(error) and not any(word in str(error) for word in (NO_TOKEN, *LASTING))
