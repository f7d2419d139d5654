"""The Hugging Face hub: a revision becomes a commit once, and files are read at that commit by our HTTP path.

One request a job tells which commit ``main`` is. Reading at a commit costs no listing, and no file changes while it
is read, or between two workers: the commit goes along to them.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from streampipe.errors import ConfigError, SourceError
from streampipe.source.address import address
from streampipe.source.failures import HttpError
from streampipe.source.fetch import Fetch
from streampipe.source.http import HttpStore, Request
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.web import Web, etag

_COMMIT = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(
    r"(?:(datasets|spaces|models)/)?(?!(?:datasets|spaces|models|buckets)/)([^/@]+/[^/@]+)"
    r"(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?/(.+)",
    re.DOTALL,
)


class _File(NamedTuple):
    kind: str
    repository: str
    revision: str
    path: str

    @property
    def folder(self) -> str:
        """The repository's place below the hub's web pages: models have no prefix there."""
        return self.repository if self.kind == "models" else f"{self.kind}/{self.repository}"


class Hub:
    """URLs of hf: ``hf://datasets/owner/name@revision/path``.

    Args:
        options: ``token`` (a text, or False for none; else what ``hf auth login`` left) and ``endpoint``.
        shared: the commits that were found, by repository and revision.
    """

    heads = False

    def __init__(self, options: Mapping[str, Any], network: Network, shared: dict[str, str]) -> None:
        others = set(options) - {"token", "endpoint"}
        if others:
            raise ConfigError(
                f"storage_options for hf take token= and endpoint=, not {', '.join(sorted(others))}; "
                "network=sp.Network(stores={'hf': 'fsspec'}) reads by huggingface_hub, which may take it"
            )
        self.settings: dict[str, Any] = {}
        self.shared = shared
        self._network = network
        self._token = options.get("token")
        self._lock = threading.Lock()
        self._at = str(options.get("endpoint") or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def request(self, url: str, method: str) -> Request:
        """The request for a file at its commit."""
        file = _parsed(url)
        at = f"{self._at}/{file.folder}/resolve/{self._commit(url, file)}/{quote(file.path)}"
        return Request(address(at), self._headers())

    def _commit(self, url: str, file: _File) -> str:
        if _COMMIT.fullmatch(file.revision):
            return file.revision
        name = f"{file.folder}@{file.revision}"
        with self._lock:  # threads that begin together ask once
            return self._resolved(url, file, name)

    def _resolved(self, url: str, file: _File, name: str) -> str:
        if name not in self.shared:
            at = f"{self._at}/api/{file.kind}/{file.repository}/revision/{quote(file.revision, safe='')}"
            store = HttpStore(_Api(self, url, self._headers()), self._network)
            try:
                body = b"".join(Fetch(store, at, self._network))
            except SourceError as error:
                raise type(error)(f"{redact(url)}: its revision {file.revision} cannot be had: {error}") from None
            try:
                found = json.loads(body)["sha"]
            except (ValueError, KeyError, TypeError, RecursionError):
                found = None
            if not isinstance(found, str) or not _COMMIT.fullmatch(found):
                raise SourceError(f"{redact(url)}: the hub does not say which commit {file.revision} is; give one by @")
            self.shared[name] = found
        return self.shared[name]

    def _headers(self) -> dict[str, str]:
        token = self._found_token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _found_token(self) -> str | None:
        if self._token is False:
            return None
        if isinstance(self._token, str):
            return self._token
        try:
            from huggingface_hub import get_token
        except ImportError:
            return os.environ.get("HF_TOKEN")
        return get_token()

    def credentials(self, url: str) -> str:
        """Whether a token says who asks."""
        if isinstance(self._token, str):
            return "with token of storage_options"
        return "with the token of this machine (hf auth login)" if self._found_token() else "without a token"

    def renew(self) -> None:
        """A token is looked for with each request."""

    def version(self, headers: Mapping[str, str]) -> str | None:
        """The ETag."""
        return etag(headers)

    def refusal(self, url: str, error: HttpError) -> Exception:
        """The hub says in a header of its own why it refuses."""
        why = error.headers.get("X-Error-Code", "")
        if why == "GatedRepo":
            page = f"{self._at}/{_parsed(url).folder}"
            return error.saying(f"it is gated: accept its conditions at {page} with the account of the token")
        if error.status == 401:
            return error.saying("there is no such repository, or it is private and the token does not open it")
        return error.saying(why) if why in ("RepoNotFound", "RevisionNotFound", "EntryNotFound") else error


class _Api(Web):
    """The hub's API, whose refusals mean what those of the files mean."""

    def __init__(self, hub: Hub, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._hub, self._of = hub, url

    def credentials(self, url: str) -> str:
        return self._hub.credentials(url)

    def refusal(self, url: str, error: HttpError) -> Exception:
        return self._hub.refusal(self._of, error)


def _parsed(url: str) -> _File:
    found = _URL.fullmatch(url.partition("://")[2].removesuffix("?download=true"))
    if found is None:
        raise ConfigError(
            f"{redact(url)} names no file of a repository: hf://datasets/owner/name/path, or with a revision "
            "hf://datasets/owner/name@revision/path"
        )
    return _File(found[1] or "models", found[2], unquote(found[3] or "main"), found[4])


class HubStore(HttpStore):
    """The store of hf."""

    def __init__(self, options: Mapping[str, Any], network: Network) -> None:
        self.shared: dict[str, str] = {}
        self._hub = Hub(options, network, self.shared)
        super().__init__(self._hub, network)

    def share(self, known: dict[str, str]) -> None:
        """What all processes of a job agree on: which commit a revision is."""
        self._hub.shared = known
