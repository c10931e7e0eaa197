"""S3 and what speaks its protocol (MinIO, Ceph, R2), through boto3.

boto3 rather than a filesystem: it tells an object's ETag and reads on condition that it is still the same, it pages
through listings of any length, and it takes credentials from wherever the AWS command line does (AWS_* variables,
profiles, single sign-on, roles of machines), as it does the endpoint (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from bidsim.errors import LogError
from bidsim.logs.retrying import retrying
from bidsim.logs.stores import CHANGED, GONE, StoredObject, denied

CREDENTIALS = (
    "credentials come from the usual environment: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the "
    "machine's role"
)
LACKING = "logs on S3 need boto3: pip install 'bidsim[s3]'"
PAGE = 1000
SLOW_DOWN = frozenset(
    ["SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout", "RequestTimeTooSkewed"]
)
RUN_OUT = frozenset(["ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"])
OTHER_REGION = frozenset(["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"])
CONNECT_SECONDS, READ_SECONDS = 10, 60


class _Short(Exception):
    """The connection ended before the bytes did."""


@dataclass
class S3Store:
    """One bucket. The client is made at the first request of each process, and is good for many threads."""

    bucket: str
    _client: Any = field(default=None, repr=False, compare=False)
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"bucket": self.bucket}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["bucket"])  # type: ignore[misc]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        token: str | None = None
        while True:
            asked = {"Bucket": self.bucket, "Prefix": prefix, "MaxKeys": PAGE}
            if token is not None:
                asked["ContinuationToken"] = token
            page = self._call(lambda a=asked: self._open().list_objects_v2(**a), "listing", self._url(prefix))
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):
                    yield self._stored(entry)
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or token is None:
                return

    def find(self, key: str) -> StoredObject | None:
        if not key or key.endswith("/"):
            return None
        # A listing rather than a look at the object itself: it needs no other right, and comes in the order of keys.
        asked = {"Bucket": self.bucket, "Prefix": key, "MaxKeys": 1}
        page = self._call(lambda: self._open().list_objects_v2(**asked), "listing", self._url(key))
        return next((self._stored(entry) for entry in page.get("Contents", ()) if entry["Key"] == key), None)

    def read(self, thing: StoredObject, start: int, length: int) -> bytes:
        if length <= 0:
            return b""

        def get() -> tuple[bytes, str]:
            answer = self._open().get_object(
                Bucket=self.bucket, Key=thing.key, Range=f"bytes={start}-{start + length - 1}", IfMatch=thing.version
            )
            body = answer["Body"].read()
            # A store that knows no conditions still says what it gave.
            version = str(answer.get("ETag", thing.version))
            if version == thing.version and len(body) != length:
                raise _Short
            return body, version

        body, version = self._call(get, "reading", thing.url)
        if version != thing.version:
            raise LogError(CHANGED, file=thing.url)
        return bytes(body)

    def _stored(self, entry: Any) -> StoredObject:
        return StoredObject(self._url(entry["Key"]), entry["Key"], int(entry["Size"]), str(entry["ETag"]))

    def _url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def _open(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _make_client()
            return self._client

    def _call(self, call: Any, what: str, url: str) -> Any:
        try:
            from botocore import exceptions
        except ImportError:
            raise LogError(LACKING) from None

        try:
            return retrying(call, _transient)
        except exceptions.ClientError as error:
            raise _explain(error, what, url, self.bucket) from None
        except exceptions.NoCredentialsError:
            raise LogError(f"no credentials for S3 were found; {CREDENTIALS}", file=url) from None
        except (
            exceptions.PartialCredentialsError,
            exceptions.CredentialRetrievalError,
            exceptions.TokenRetrievalError,
        ):
            raise LogError(f"the credentials for S3 are not whole or have run out; {CREDENTIALS}", file=url) from None
        except exceptions.ProfileNotFound:
            raise LogError("AWS_PROFILE names a profile that does not exist", file=url) from None
        except (exceptions.HTTPClientError, exceptions.ConnectionError, _Short, OSError) as error:
            raise LogError(
                f"{what} failed again and again ({_kind(error)}); check the network and AWS_ENDPOINT_URL", file=url
            ) from None
        except exceptions.ParamValidationError:
            raise LogError(f'"{self.bucket}" is not the name of a bucket', file=url) from None
        except ValueError:
            raise LogError(
                "the endpoint is no address; write AWS_ENDPOINT_URL like http://host:9000", file=url
            ) from None
        except exceptions.BotoCoreError as error:
            raise LogError(f"{what} failed ({_kind(error)}); check the AWS configuration", file=url) from None


def _make_client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise LogError(LACKING) from None
    session = boto3.session.Session()
    # Trying again is `retrying`'s, which also does it where a connection breaks in the middle of an answer.
    own: dict[str, Any] = {
        "retries": {"total_max_attempts": 1},
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "max_pool_connections": 32,
        "user_agent_extra": "bidsim",
    }
    client = session.client("s3", config=Config(**own))
    amazon = ".amazonaws.com" in client.meta.endpoint_url
    chosen = (session._session.get_scoped_config().get("s3") or {}) if session.profile_name else {}
    if not amazon and not (isinstance(chosen, dict) and chosen.get("addressing_style")):
        # Other servers seldom have a host name for each bucket.
        client = session.client("s3", config=Config(**own, s3={"addressing_style": "path"}))
    return client


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))[:60]


def _kind(error: Exception) -> str:
    """The name of the error; its text could hold a signed address."""
    return type(error).__name__.lstrip("_")


def _transient(error: Exception) -> bool:
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _status(error) >= 500 or _status(error) == 429 or _code(error) in SLOW_DOWN
    if isinstance(error, exceptions.ProxyConnectionError | exceptions.SSLError):
        return False
    # An address that nobody answers is tried again too: names and servers come back.
    return isinstance(
        error, (exceptions.HTTPClientError, exceptions.ConnectionError, _Short, ConnectionError, TimeoutError)
    )


def _explain(error: Any, what: str, url: str, bucket: str) -> LogError:
    status, code = _status(error), _code(error)
    if code == "NoSuchBucket":
        return LogError(f'there is no bucket "{bucket}"; check the address and AWS_ENDPOINT_URL', file=url)
    if status == 412 or status == 416:
        return LogError(CHANGED, file=url)
    if status == 404:
        return LogError(GONE, file=url)
    if code == "InvalidObjectState":
        return LogError("the object is archived (Glacier); restore it first, or read a shorter window", file=url)
    if code in RUN_OUT:
        return LogError(f"the credentials for S3 are not valid or have run out ({code}); {CREDENTIALS}", file=url)
    if code in OTHER_REGION:
        return LogError(f"the bucket is in another region ({code}); set AWS_DEFAULT_REGION to it", file=url)
    if status in (401, 403):
        named = f" ({code})" if code and not code.isdigit() else ""
        return denied(f"{what}{named}", url, CREDENTIALS)
    if _transient(error):
        return LogError(f"{what} failed again and again ({code or status}); try later", file=url)
    return LogError(f"{what} failed ({code or status})", file=url)
