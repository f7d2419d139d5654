"""Names of members that are part of no sample: readers pass them over, so nothing is written under them."""

from __future__ import annotations

import re

JUNK = frozenset((".DS_Store", "Thumbs.db", "thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini"))
"""What systems put into every folder; the last ones would be samples."""
JUNK_FIELDS = frozenset(("db", "ini"))
"""The fields that those would be."""
_RESERVED = re.compile(r"__[^/]*__(/|\Z)")
_EXTRACTED = re.compile(r"(.*/)?PaxHeaders?(\.\d+)?/", re.DOTALL)
"""Extended headers, unpacked as files and packed again."""


def passed_over(name: str) -> str | None:
    """What a member is, by its name, that is part of no sample, as it is counted; None for one that is.

    >>> passed_over("a/._0001.jpg"), passed_over("__meta__/x.json"), passed_over("PaxHeaders.7/0001.jpg")
    ('._*', 'reserved names', 'PaxHeaders')
    >>> passed_over("0001.jpg"), passed_over("README")
    (None, 'without a field')
    """
    base = name[name.rfind("/") + 1 :]
    dot = base.find(".")
    if _RESERVED.match(name):
        return "reserved names"
    if base in JUNK:
        return base
    if _EXTRACTED.match(name):
        return "PaxHeaders"
    if dot == 0:
        return "._*" if base.startswith("._") else "hidden files"
    return "without a field" if dot < 0 else None
