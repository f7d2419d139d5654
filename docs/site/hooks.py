"""For the site: notebooks as pages, run when it is built; the list of decisions; each page as Markdown, for programs.

The Markdown of a page lies where its source lies (``trainers.md`` of ``trainers/``), so links from page to page hold.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
_OBJECT = re.compile(r"^::: (\S+)\n(?:    .*\n)*", re.MULTILINE)
_MARKDOWN: dict[str, str] = {}
"""The pages' Markdown, by where it goes."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of something else."""
    sys.path.insert(0, str(ROOT))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        made = executed(json.loads(Path(notebook.abs_src_path or "").read_text()))
        files.append(File.generated(config, notebook.src_uri.removesuffix(".ipynb") + ".md", content=made))
    decisions = sorted(file.src_uri for file in files if file.src_uri.startswith("decisions/"))
    titles = {uri: (ROOT / "docs" / uri).read_text().partition("\n")[0].lstrip("# ") for uri in decisions}
    rows = [f"- [{title}]({uri.removeprefix('decisions/')})" for uri, title in titles.items()]
    head = "# Decisions\n\nWhy it is as it is: a short page for each, numbered as they came.\n\n"
    files.append(File.generated(config, "decisions/index.md", content=head + "\n".join(rows) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Keeps a page as Markdown."""
    _MARKDOWN[page.file.src_uri] = _OBJECT.sub(lambda found: described(found[1]), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Says where the page is as Markdown."""
    up = page.url.count("/") * "../"
    return f'{html}\n<p><small><a href="{up}{page.file.src_uri}">This page as Markdown</a></small></p>'


def on_post_build(config: MkDocsConfig) -> None:
    """Writes the pages as Markdown, and llms.txt, whose links lead to them."""
    site = Path(config.site_dir)
    for uri, text in _MARKDOWN.items():
        (site / uri).parent.mkdir(parents=True, exist_ok=True)
        (site / uri).write_text(text)
    (site / "api.txt").write_text((ROOT / "tests" / "api.txt").read_text())
    (site / "README.md").write_text((ROOT / "README.md").read_text().replace("](docs/", "]("))
    places = (ROOT / "llms.txt").read_text().replace("](docs/", "](").replace("](tests/api.txt", "](api.txt")
    (site / "llms.txt").write_text(places)


def executed(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown, with what its cells print."""
    parts: list[str] = []
    there: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("STREAMPIPE_CACHE", cache)
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] != "code":
                parts.append(source)
                continue
            parts.append(f"```python\n{source}\n```")
            if printed := output(source, there):
                parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


def output(source: str, there: dict[str, Any]) -> str:
    """What a cell prints, and the value of its last line.

    >>> output("a = 2\\nprint(a)\\na + 1", {})
    '2\\n3'
    """
    *lines, last = source.rstrip().split("\n")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            code = compile(last, "<cell>", "eval")
        except SyntaxError:
            exec(source, there)
        else:
            exec("\n".join(lines), there)
            value = eval(code, there)
            if value is not None:
                print(repr(value))
    return said.getvalue().rstrip().replace(tempfile.gettempdir(), "/tmp")


def described(place: str) -> str:
    """A public object as Markdown: its name, signature and docstring, and those of its public methods."""
    module, _, name = place.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except ImportError:  # of a library that is not here
        return f"### {place}\n"
    parts = [_entry(place, found)]
    for key, value in inspect.getmembers(found, inspect.isfunction) if inspect.isclass(found) else ():
        if not key.startswith("_") and value.__module__.startswith("streampipe") and value.__doc__:
            parts.append(_entry(f"{name}.{key}", value, "####"))
    return "\n".join(parts)


class _Bare(str):
    """An annotation as it is written, without quotes."""

    __repr__ = str.__str__


def _bare(signature: inspect.Signature) -> inspect.Signature:
    def bare(annotation: Any) -> Any:
        return _Bare(annotation) if isinstance(annotation, str) else annotation

    parameters = [each.replace(annotation=bare(each.annotation)) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=bare(signature.return_annotation))


def _entry(title: str, found: Any, level: str = "###") -> str:
    try:
        signature = re.sub(r" at 0x[0-9a-f]+", "", str(_bare(inspect.signature(found))))
    except (TypeError, ValueError):  # it has none
        signature = ""
    return (
        f"{level} {title}\n\n```python\n{title.rpartition('.')[2]}{signature}\n```\n\n{inspect.getdoc(found) or ''}\n"
    )
