"""Data flows from left to right, and imports never run against it."""

import ast
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "streampipe"

ORDER = [  # each may import from those before it, and from itself
    "printable",
    "errors",
    "spelling",
    "kinds",
    "checksum",
    "traits",
    "observe",
    "locks",
    "counters",
    "rng",
    "gil",
    "pool",
    "lifeline",
    "unwanted",
    "atomic",
    "processes",
    "cluster",
    "backoff",
    "policy",
    "context",
    "report",
    "source",
    "urls",
    "card",
    "repository",
    "tar",
    "usage",
    "samples",
    "threads",
    "memory",
    "decoding",
    "query.aliases",
    "samplesource",
    "values",
    "captions",
    "index",
    "folders",
    "query",
    "plan",
    "reading",
    "stages.stage",
    "decorators",
    "stages",
    "fluent",
    "world",
    "spec",
    "engine",
    "write",
    "pack",
    "lineage",
    "loader",
    "device",
    "views",
    "dataset",
    "pipeline",
    "replay",
    "preview",
    "stream",
    "combine",
    "compat",
    "commands",
    "cli",
    "__main__",
    "testing",
]
INSIDE = {  # and in a folder, each file from those before it
    "plan": "order shapes ratios buckets batch_sizes leftovers spread groups cut rotation lanes deal planned schedule "
    "course stepped ask compound clips dataset streams sorter bucket_orders bucket_plan bucketed packing costs "
    "pack_plan packed mixed batchwise",
    "query": "aliases column expression arrow condition split own cost",
    "index": "beside stated facts columns unpack parquet memory known manifest separated sidecar table layout ready "
    "sizes scan writer note find merged answers dataset whole build learn",
    "source": "location address connections network failures wire store http web retry fetch s3 gcs hub rust stores "
    "buffers link traffic forward versions ranges ranged local disk part cache download source",
    "tar": "limits foreign extended header names compression entries reader writer",
    "decoding": "extensions inflate geometry text blocks tensorfile conditioning arrays budget exif codec segments icc "
    "resize boxes pillow jpeg_damage jpeg fast png web more codecs image deferred several fields clip container "
    "isobmff matroska animation movie video",
    "reading": "protocol iterable finder members shards sliced indexed tars numbered folder pieces rows parquet arrow "
    "chunks mds litdata formats forward remote wanted pace prefetch reader",
    "folders": "names walk files facts metadata layouts duplicates remote zips blocks listing",
    "pack": "split change contents sift catalog supply find output pickles shard job summary work spool run",
    "engine": "engine chain division learnt planning mix batched batches indexed lanes turns streams state interleaved "
    "bounds compile life clock plain explain_reading explain_plan explain",
    "write": "cost draft encode spec job work workers run",
    "device": "codec transfer images watch feed",
    "observe": "histogram trace tally",
    "report": "seen summary verdict summarize text metrics chrome html page forms saved live prometheus",
    "lineage": "log read",
    "loader": "ahead options callers handover making recorder feed watchers passes reports choose loader",
    "views": "picture cards show",
    "compat": "checkpoint accelerate datasets lightning open_clip ray transformers webdataset",
    "usage": "words arguments bench cat completion extract index info ls pack preview select verify",
    "commands": "say given histogram look bench cat completion extract index info ls pack preview select verify",
}
ONLY = {
    "torch": {
        "memory",
        "decoding",
        "stages",
        "decorators",
        "world",
        "engine",
        "loader",
        "device",
        "dataset",
        "pipeline",
        "write",
        "pack.pickles",
    }
    | {"compat", "views"},
    "fsspec": {"source"},
    "urllib3": {"source"},
    "PIL": {"decoding", "pack.change", "write", "commands.preview", "views"},
    "simplejpeg": {"decoding"},
    "imagecodecs": {"decoding.fast"},
    "av": {"decoding.video"},
    "zlib_ng": {"checksum"},
    "webdataset": {"decoding"},
    "ray": {"cluster", "compat.ray"},
}


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def place(name):
    """The entry of ORDER that a module belongs to."""
    while name not in ORDER and "." in name:
        name = name.rpartition(".")[0]
    return name


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
        name = module_of(path)
        if name != "__init__":
            yield name, path


def runs_backwards(mine, theirs):
    if ORDER.index(place(theirs)) != ORDER.index(place(mine)):
        return ORDER.index(place(theirs)) > ORDER.index(place(mine))
    folder, _, file = mine.partition(".")
    other = theirs.split(".")[1] if "." in theirs else ""
    if folder not in INSIDE or not file or not other:
        return False
    order = INSIDE[folder].split()
    return order.index(other) > order.index(file)


def test_imports_never_run_from_left_to_right():
    wrong = []
    for mine, path in modules():
        for module in imports(path):
            theirs = module.removeprefix("streampipe.")
            if module.startswith("streampipe.") and runs_backwards(mine, theirs):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_each_foreign_library_is_known_in_its_places_only():
    wrong = []
    for mine, path in modules():
        for module in imports(path):
            allowed = ONLY.get(module.partition(".")[0])
            if allowed is not None and not any(mine.startswith(each) for each in allowed):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_every_module_has_its_place():
    assert {place(mine) for mine, _ in modules()} == set(ORDER)
    for folder, files in INSIDE.items():
        assert {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"} == set(files.split())


@pytest.mark.parametrize("folder", ["plan", "engine", "loader", "reading", "index", "query"])
def test_the_first_page_of_a_folder_names_its_files(folder):
    page = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text()))
    assert set(re.findall("``([a-z_]+)``", page)) >= set(INSIDE[folder].split())


def test_public_names_stand_in_three_places_of_the_package():
    import streampipe

    tree = ast.parse((ROOT / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))  # what type checkers read
    read = {alias.name: node.module for node in checked.body for alias in node.names}
    assert read == streampipe._PLACES
    assert sorted(read) == sorted(streampipe.__all__)
    assert set(dir(streampipe)) >= {*read, "__version__"}
    for name in read:
        assert not isinstance(getattr(streampipe, name), types.ModuleType)


def test_nothing_is_imported_before_it_is_used():
    """Nor is a function ever hidden by the module that it comes from, whatever is imported first."""
    code = """
import sys, streampipe.cli
assert not {"torch", "pyarrow", "numpy"} & set(sys.modules)
for words in (["--help"], *([name, "--help"] for name in streampipe.cli.COMMANDS)):
    try:
        streampipe.cli.main(words)
    except SystemExit:
        assert not {"torch", "pyarrow", "numpy", "urllib3"} & set(sys.modules), words
import streampipe.stream, streampipe.index
from streampipe import index, stream
assert streampipe.stream is stream and callable(stream) and callable(index)
assert streampipe.errors.ConfigError is streampipe.ConfigError
assert not hasattr(streampipe, "no_such_thing")
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=120)
