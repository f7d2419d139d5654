"""Google's object store: gcsfs finds credentials, our HTTP path reads; one request a window, pinned by generation."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from streampipe.errors import ConfigError
from streampipe.source.address import address
from streampipe.source.failures import HttpError
from streampipe.source.http import HttpStore, Request
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.web import etag

_BUSY = (b"ateLimitExceeded", b"backendError")
"""Reasons that Google gives with 403 for what is only busy."""
_GENERATION = re.compile(r"(.*?)(?:#(\d+))?", re.DOTALL | re.ASCII)
"""An object's name, in which there may be a # too, and the generation that is meant."""


class Gcs:
    """URLs of gs and gcs. ``options`` are gcsfs's: ``token``, ``project``, ``endpoint_url``, ..."""

    heads = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.settings: dict[str, Any] = {}
        self._options = dict(options)
        self._lock = threading.Lock()
        self._files: Any = None
        at = options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
        at = "https://storage.googleapis.com" if at == "default" else str(at)
        self._at = (at if "://" in at else f"http://{at}").rstrip("/")

    def request(self, url: str, method: str) -> Request:
        """The request for an object's bytes."""
        bucket, _, name = url.partition("://")[2].partition("/")
        name, generation = _GENERATION.fullmatch(name).groups()  # type: ignore[union-attr]  # anything matches
        if not bucket or not name:
            raise IsADirectoryError(f"{redact(url)} names no object")
        query = f"alt=media&generation={generation}" if generation else "alt=media"
        if payer := self._options.get("requester_pays"):
            payer = payer if isinstance(payer, str) else self._options.get("project") or self._filesystem().project
            query += f"&userProject={quote(str(payer or ''), safe='')}"
        path = f"download/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}"
        headers: dict[str, str] = {}
        if self._options.get("token") != "anon":
            self._filesystem().credentials.apply(headers)
        return Request(address(f"{self._at}/{path}?{query}"), headers)

    def _filesystem(self) -> Any:
        with self._lock:
            if self._files is None:
                import gcsfs

                self._files = gcsfs.GCSFileSystem(**{**self._options, "skip_instance_cache": True})
            return self._files

    def credentials(self, url: str) -> str:
        """What says who asks."""
        if self._options.get("token") == "anon":
            return "without credentials (token='anon' of storage_options)"
        given = "with token of storage_options"
        return given if self._options.get("token") else "with what the environment and configuration files give"

    def renew(self) -> None:
        """Look for credentials anew."""
        with self._lock:
            self._files = None

    def version(self, headers: Mapping[str, str]) -> str | None:
        """The object's generation."""
        return headers.get("X-Goog-Generation") or etag(headers)

    def refusal(self, url: str, error: HttpError) -> Exception:
        """Google says 403 for too many requests, too."""
        return error.as_status(429) if error.status == 403 and any(each in error.body for each in _BUSY) else error


def gcs(options: Mapping[str, Any], network: Network) -> HttpStore:
    """The store of gs and gcs.

    Raises:
        ConfigError: gcsfs, the extra ``gcs``, is not installed.
    """
    try:
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"gs:// needs a package that is not installed ({error}); pip install gcsfs") from error
    return HttpStore(Gcs(options), network)
