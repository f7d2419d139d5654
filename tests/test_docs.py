"""What the documents say of tests is true: every test that they name exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("**/*.md"))]
NAMED = re.compile(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+))?`")


@cache
def names_in(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def places(name):
    """The files that a document may mean: a name below ``tests/``, or a last part of one where that is clear."""
    path = ROOT / "tests" / name
    return [path] if path.exists() else list((ROOT / "tests").glob(f"**/{name}"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document):
    wrong = []
    for name, test in NAMED.findall(document.read_text()):
        found = places(name) + list((ROOT / "tests").glob(f"*/{Path(name).name}"))
        if not found or (test and not any(test in names_in(path) for path in found)):
            wrong.append(f"{name}::{test}")
    assert not wrong


def test_every_row_of_the_faults_has_a_test_or_says_why_not():
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 55))
    assert all(NAMED.search(proof) or proof.startswith("none: ") for _, proof in rows)
