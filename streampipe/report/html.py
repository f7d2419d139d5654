"""HTML pages that need nothing else, no server and no network, and in which data stay data.

A template holds ``CSP``, ``/*SHARED*/`` (the style that all pages share), ``DATA``, and one script. The data stand in a
block of their own, where no byte of them can end it, and scripts show them by ``textContent`` alone. Should a page fail
at that one day, its policy still runs no other script than its own, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from importlib.resources import files
from typing import Any

_MARKUP = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def filled(package: str, template: str, data: object) -> str:
    """The template of a package with these data, which are plain JSON."""
    text = (files(package) / template).read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    shared = (files("streampipe.report") / "shared.css").read_text(encoding="utf-8")
    head, _, tail = text.partition('id="data">DATA<')  # the data come last: nothing is looked for in them
    head = head.replace('"CSP"', f'"{policy}"', 1).replace("/*SHARED*/", shared, 1)
    return f'{head}id="data">{as_data(data)}<{tail}'


def as_data(data: object) -> str:
    r"""JSON that can stand inside a ``<script>`` of a page: nothing in it can be taken for markup.

    >>> print(as_data({"caption": "</script><!--<script>"}))
    {"caption":"\u003c/script\u003e\u003c!--\u003cscript\u003e"}
    """
    return json.dumps(finite(data), separators=(",", ":")).translate(_MARKUP)


def finite(value: Any) -> Any:
    """Plain values without NaN and infinity, which JSON does not have: None instead."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
