"""Plain web servers: URLs as they stand, headers of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streampipe.errors import ConfigError
from streampipe.source.address import address
from streampipe.source.connections import basic
from streampipe.source.failures import HttpError
from streampipe.source.http import HttpStore, Request
from streampipe.source.network import Network


def etag(headers: Mapping[str, str]) -> str | None:
    """What HTTP itself marks a version with."""
    return headers.get("ETag")


class Web:
    """URLs of http and https.

    Args:
        headers: sent to the host of each URL, and to no other that it leads to.
    """

    heads = True

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self.settings: dict[str, Any] = {}
        self._headers = dict(headers or {})
        for name, value in self._headers.items():
            if not isinstance(value, str) or not value.isprintable() or not value.isascii():
                raise ConfigError(f"the header {name} of storage_options is no line of ASCII text")

    def request(self, url: str, method: str) -> Request:
        """The URL itself, with its user."""
        at = address(url)
        user = {"Authorization": basic(at.user)} if at.user else {}
        return Request(at, {**user, **self._headers})

    def credentials(self, url: str) -> str:
        """Which header, or user, says who asks."""
        used = next((name for name in self._headers if name.lower() in ("authorization", "cookie")), None)
        if used:
            return f"with the header {used} of storage_options"
        return "as the user named in the URL" if address(url).user else "without credentials (storage_options headers=)"

    def renew(self) -> None:
        """Nothing is kept."""

    def version(self, headers: Mapping[str, str]) -> str | None:
        """The ETag."""
        return etag(headers)

    def refusal(self, url: str, error: HttpError) -> Exception:
        """A status says what it means."""
        return error


def web(options: Mapping[str, Any], network: Network) -> HttpStore:
    """The store of http and https."""
    others = set(options) - {"headers"}
    if others:
        raise ConfigError(
            f"storage_options for http take headers= only, not {', '.join(sorted(others))}; for anything else "
            f"give opener="
        )
    return HttpStore(Web(options.get("headers")), network)
