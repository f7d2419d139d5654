"""Data flows from left to right, and imports never run against it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "streampipe"

ORDER = [  # each may import from those before it, and from itself
    "errors",
    "state",
    "counters",
    "aliases",
    "rng",
    "buckets",
    "spread",
    "groups",
    "expression",
    "policy",
    "context",
    "report",
    "order",
    "plan",
    "lanes",
    "source",
    "urls",
    "tar",
    "samples",
    "threads",
    "decoding",
    "captions",
    "index",
    "condition",
    "beside",
    "sidecar",
    "planned",
    "dataset",
    "bucketed",
    "indexed",
    "remote",
    "prefetch",
    "reader",
    "shards",
    "stages.stage",
    "decorators",
    "stages",
    "pack",
    "world",
    "epochs",
    "chain",
    "mix",
    "passes",
    "progress",
    "pipeline",
    "explain",
    "write",
    "ahead",
    "feed",
    "loader",
    "stream",
    "cli",
    "testing",
]
LATER = {
    ("pipeline", "loader"),
    ("pipeline", "explain"),
    ("pipeline", "write"),
    ("progress", "pipeline"),
}  # inside a method: the loader's own name on the pipeline
ONLY = {
    "torch": {"decoding", "stages", "decorators", "world", "epochs", "pipeline", "feed", "loader", "write"},
    "fsspec": {"source"},
    "urllib3": {"source"},
    "PIL": {"decoding", "write"},
    "simplejpeg": {"decoding"},
    "webdataset": {"decoding"},
}


def place(module):
    name = module.removeprefix("streampipe").removeprefix(".")
    return "stages.stage" if name.startswith("stages.stage") else name.partition(".")[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "streampipe":
                yield from (f"streampipe.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield place(f"streampipe.{name}"), path


def test_imports_never_run_from_left_to_right():
    wrong = []
    for mine, path in modules():
        for module in imports(path):
            if module.startswith("streampipe"):
                theirs = place(module)
                if (mine, theirs) not in LATER and ORDER.index(theirs) > ORDER.index(mine):
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_each_foreign_library_is_known_in_its_places_only():
    wrong = []
    for mine, path in modules():
        for module in imports(path):
            allowed = ONLY.get(module.partition(".")[0])
            if allowed is not None and mine not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_every_module_has_its_place():
    assert {mine for mine, _ in modules()} == set(ORDER)


def test_public_names_are_a_sorted_table_of_contents():
    import streampipe

    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in tree.body)
    assert sorted(streampipe.__all__) == sorted(set(streampipe.__all__))
