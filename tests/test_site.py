"""The documents as a site: the first page runs, the reference names what there is, and no warning comes up."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import streampipe as sp
from tests.data import photo, shard

ROOT = Path(__file__).parent.parent
SITE = ROOT / "docs" / "site"


def test_the_reference_names_public_names_by_their_places():
    named = re.findall(r"^::: (\S+)$", (SITE / "reference.md").read_text(), re.MULTILINE)
    assert len(named) == len(set(named))
    own = {name for name in named if not name.startswith("streampipe.compat.")}
    assert len(own) > 60
    assert own <= {f"{sp._PLACES[name]}.{name}" for name in sp.__all__}


def test_the_code_of_the_first_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    samples = [(f"{i:02d}", {"jpg": photo(i, 80, 70), "txt": "a cat"}) for i in range(8)]
    (tmp_path / "shards" / "0.tar").write_bytes(shard(samples))
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    there = {}
    exec(code, there)
    assert tuple(there["images"].shape) == (4, 3, 64, 64)
    assert "2 batches, 8 samples" in capsys.readouterr().out


def test_the_site_is_built_without_a_warning(tmp_path):
    for name in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q"]
    command += ["-f", str(SITE / "mkdocs.yml"), "-d", str(tmp_path / "site")]
    subprocess.run(command, check=True, cwd=tmp_path)
    site = tmp_path / "site"
    text = (site / "site" / "reference" / "index.html").read_text()
    assert 'id="streampipe.stream.stream"' in text
    assert 'id="streampipe.pipeline.Pipeline.decode"' in text, "its methods, too, also those of Fluent"
    assert "Pipeline._clock" not in text
    pages = [page for page in site.rglob("index.html") if "Redirect" not in page.read_text()[:500]]
    assert len(pages) > 100
    for page in pages:
        (link,) = re.findall(r'<a href="([^"]*)">This page as Markdown', page.read_text())
        assert (page.parent / link).read_text().lstrip().startswith("#"), page
    links = re.findall(r"\]\(([^):]+)\)", (site / "llms.txt").read_text())
    assert len(links) > 30
    assert [link for link in links if not (site / link).exists()] == []
    twin = (site / "site" / "reference.md").read_text()
    assert "decode(self, size: " in twin
    assert ":::" not in twin
    assert "2 full batches" in (site / "site" / "first-steps.md").read_text(), "with what its cells print"


@pytest.mark.parametrize("name", ["first-steps", "stop-and-go-on"])
def test_a_notebook_runs(name, monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path))
    cells = json.loads((SITE / f"{name}.ipynb").read_text())["cells"]
    there = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "notebooks are kept without what they printed"
            exec("".join(cell["source"]), there)
