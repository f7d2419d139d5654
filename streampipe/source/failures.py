"""What a backend's error means: which of ours it is, and whether to try again.

Backends raise what they like: aiohttp's, botocore's and Azure's own classes, OSError, even IndexError. So the meaning
is read off an HTTP status where the error, or what caused it, carries one; else off its class; and whatever is not
known to be final is worth another try.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from streampipe.errors import AccessDenied, ConfigError, ShardChanged, ShardMissing, SourceError, StreampipeError
from streampipe.source.location import redact, redacted


class HttpError(Exception):
    """An answer with a status that is no success."""

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str] | None = None, body: bytes = b"", said: str = ""
    ) -> None:
        super().__init__(f"HTTP {status} {reason}".strip() + (f": {said}" if said else ""))
        self.status = status
        self.reason = reason
        self.headers = headers or {}
        self.body = body
        self.said = said

    def saying(self, text: str) -> HttpError:
        """The same, with what the store says of it."""
        return HttpError(self.status, self.reason, self.headers, self.body, text)

    def as_status(self, status: int) -> HttpError:
        """The same, meaning what another status means."""
        changed = HttpError(self.status, self.reason, self.headers, self.body, self.said)
        changed.status = status
        return changed


class Expired(HttpError):
    """Credentials that were good have run out: the same request may do as soon as they are renewed."""

    def __init__(self, error: HttpError) -> None:
        super().__init__(error.status, error.reason, error.headers, error.body, error.said)


class Ended(Exception):
    """The connection ended in good order before all bytes had come."""


class Failure(NamedTuple):
    """An error as one of ours; whether another try may help; how long the server asks to wait (seconds)."""

    error: StreampipeError
    again: bool
    wait: float = 0.0


_FINAL = (ValueError, TypeError, AttributeError, ImportError, NotImplementedError, KeyError)
_LOCAL = (errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EDQUOT)


def failure(error: BaseException, url: str, done: str = "read", used: str = "") -> Failure:
    """The meaning of a backend's error. ``used``: which credentials the request was made with."""
    if isinstance(error, StreampipeError):
        return Failure(error, False)
    shown = redact(url)
    text = redacted(f"{type(error).__name__}: {error}", url)
    status = next((found for found in map(_status, causes(error)) if found), None)
    names = {type(each).__name__ for each in causes(error)}
    if "SSLCertVerificationError" in names:
        return Failure(SourceError(f"{shown} could not be {done} ({text}); check the server's certificate"), False)
    if isinstance(error, Expired):
        how = f"; it was asked for {used}" if used else ""
        text = f"{shown} may not be {done}: its credentials have run out ({text}){how}; renew them"
        return Failure(AccessDenied(text), True, _wait(error))
    if status == 407 or ("ProxyError" in names and "407" in text):
        return Failure(
            AccessDenied(
                f"{shown} may not be {done}: the proxy of the environment wants a user and password; "
                "give them in http_proxy and https_proxy (http://user:password@host:port)"
            ),
            False,
        )
    busy = isinstance(error, TimeoutError) or (status is not None and (status >= 500 or status in (408, 425, 429)))
    if not busy:
        if status in (404, 410) or isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
            named = url.partition("://")[2].rpartition("/")[2]
            hint = ", or end it in a / if it is a folder" if named and "." not in named else ""
            return Failure(ShardMissing(f"{shown} does not exist; check the URL{hint} ({text})"), False)
        if status in (401, 403) or isinstance(error, PermissionError) or names & _CREDENTIALS:
            how = f"; it was asked for {used}" if used else ""
            return Failure(AccessDenied(f"{shown} may not be {done} ({text}){how}; check these credentials"), False)
        if status == 412 or "FileExpired" in names:
            return Failure(changed(url, "the store has another version now"), False)
        if status is not None and status >= 300:
            return Failure(SourceError(f"{shown} could not be {done} ({text}); check the URL and the server"), False)
        if isinstance(error, _FINAL):
            return Failure(
                ConfigError(f"{shown} could not be {done} ({text}); check storage_options= or opener="), False
            )
        if isinstance(error, OSError) and error.errno in _LOCAL:
            return Failure(SourceError(f"{shown} could not be {done} ({text})"), False)
    return Failure(SourceError(f"{shown} could not be {done} ({text})"), True, _wait(error))


_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "DefaultCredentialsError"}
"""Not among them: that they could not be fetched this time (botocore's CredentialRetrievalError)."""


def changed(url: str, how: str) -> ShardChanged:
    """The error of an object that was replaced while it was read."""
    return ShardChanged(
        f"{redact(url)} was replaced while it was read ({how}): samples given out so far are whole and of one version; "
        f"begin the epoch anew, and run streampipe index again if there is an index"
    )


def cause(error: BaseException, url: str) -> BaseException | None:
    """The error as a cause to chain to; None where its text, which a traceback shows, would give away a secret."""
    safe = all(redacted(str(each), url) == str(each) for each in causes(error))
    return error if safe else None


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error carries: as aiohttp, gcsfs, Azure and botocore spell it."""
    if type(error).__module__.startswith("aiohttp.http"):
        return None  # a body that broke off has "code" 400 there: the parser's, not the server's
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
        if isinstance(value, str) and value.isdigit():
            return int(value)
    response: Any = getattr(error, "response", None)
    if isinstance(response, Mapping):
        value = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return value if isinstance(value, int) else None
    return None


_RATE = re.compile(r"(?:^|[;,\s])t=(\d+(?:\.\d+)?)")


def _wait(error: BaseException) -> float:
    """Seconds that the store asks to wait: by Retry-After (a number of them, or a date), or the hub's RateLimit."""
    for each in causes(error):
        headers = getattr(each, "headers", None)
        response: Any = getattr(each, "response", None)
        if headers is None and isinstance(response, Mapping):  # botocore's
            headers = {k.title(): v for k, v in response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).items()}
        if not isinstance(headers, Mapping):
            continue
        asked = headers.get("Retry-After")
        if not asked:
            limit = _RATE.search(headers.get("Ratelimit") or headers.get("RateLimit") or "")
            if limit and _status(each) == 429:  # '"resolvers";r=0;t=40': nothing is left for 40 seconds
                return float(limit[1])
            continue
        if asked.strip().isdecimal():
            return float(asked)
        try:
            return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return 0.0
