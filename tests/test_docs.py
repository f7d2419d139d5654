"""What the documents say of tests is true: every test that they name exists."""

import ast
import re
import sys
import types
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch

import streampipe as sp
from tests.data import photo, shard, write_shards
from tests.videos import need_av, video

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


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """As it is written, but for its bucket, and for the two functions that it says are the reader's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    image = photo(1, 640, 640)
    for number in range(2):
        samples = [(f"{number}{i:02d}", {"jpg": image, "txt": "a cat", "json": '{"aesthetic": 6}'}) for i in range(12)]
        (tmp_path / "shards" / f"{number:05d}.tar").write_bytes(shard(samples))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = "\n".join(blocks)
    bucket = "s3://bucket/laion/{00000..01999}.tar"
    assert bucket in code
    steps = []
    there = {"tokenize": lambda caption: [len(caption)], "train_step": steps.append}
    exec(code.replace(bucket, str(tmp_path / "shards" / "{00000..00001}.tar")), there)
    assert [tuple(batch["image"].shape) for batch in steps] == [(16, 3, 1024, 1024)]
    assert tuple(steps[0]["time_ids"].shape) == (16, 6)
    assert there["state"]["streampipe"] == 2
    own = list(there["pipe"])
    assert sum(len(batch["__key__"]) for batch in own) == 24
    printed = capsys.readouterr().out
    assert "batches are planned" in printed
    assert "bucket 1024x1024" in printed


def test_the_code_of_video_runs(tmp_path, monkeypatch):
    """Over four videos, of which one is upright, and an image."""
    need_av()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    wide, tall = video(40, 16, (24, 40)), video(20, 16, (40, 24), format="webm")
    rows = [("a", {"mp4": wide}), ("b", {"webm": tall}), ("c", {"jpg": photo(1, 40, 24)}), ("d", {"mp4": wide})]
    for number in range(2):
        samples = [(f"{key}{number}", fields) for key, fields in rows[number * 2 : number * 2 + 2]]
        (tmp_path / "videos" / f"{number:05d}.tar").write_bytes(shard(samples))
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "video.md").read_text(), re.DOTALL)
    there = {}
    exec(code, there)
    shapes = Counter(tuple(batch["video"].shape) for batch in there["pipe"])
    assert shapes == {(1, 17, 3, 192, 320): 4, (1, 17, 3, 320, 192): 1}


def test_the_code_of_extending_runs(tmp_path, monkeypatch):
    """Its blocks one after the other, over two shards of six texts each, of which five differ."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    for number in range(2):
        samples = [(f"{number}{i}", {"txt": f"text {i % 5}"}) for i in range(6)]
        (tmp_path / "shards" / f"{number}.tar").write_bytes(shard(samples))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    module = types.ModuleType("extending")
    monkeypatch.setitem(sys.modules, "extending", module)
    exec("\n".join(blocks), module.__dict__)


def test_the_code_of_the_trainers_page_runs(tmp_path, monkeypatch):
    """Its last block first, which makes the latents that the first one reads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    samples = [(f"{i:02d}", {"jpg": photo(i, 160 + 80 * (i % 2), 160), "txt": "a cat"}) for i in range(8)]
    (tmp_path / "shards" / "0.tar").write_bytes(shard(samples))
    seeded, recipe = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "trainers.md").read_text(), re.DOTALL)
    there = {"sp": sp}
    exec(recipe, there)
    shapes = {tuple(batch["latent"].shape[2:]) for batch in there["latents"]}
    assert len(shapes) == 2, "latents are trained in the buckets that they were encoded in"
    monkeypatch.setattr(sp, "stream", lambda url, inner=sp.stream, **options: inner(url, **options).take(2))
    exec(seeded, there)
    (batch,) = there["pipe"]
    assert batch["latent.npy"].shape[0] == 2


def test_the_code_of_the_latents_page_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "images").mkdir()
    write_shards(tmp_path / "shards", [5, 3])
    images = [(f"{i}", {"jpg": photo(i, 64 + 32 * (i % 2), 96 - 32 * (i % 2)), "txt": "a cat"}) for i in range(6)]
    (tmp_path / "images" / "0.tar").write_bytes(shard(images))
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "latents.md").read_text(), re.DOTALL)
    there = {}
    exec("\n".join(code), there)
    assert {tuple(batch["latents"].shape[1:]) for batch in there["training"]} == {(16, 8, 12), (16, 12, 8)}
    assert "text: " in capsys.readouterr().out
    assert {tuple(batch["latents"].shape[1:]) for batch in there["pipe"]} == {(16, 32, 32)}
    (whole, *_) = sp.stream("cache").decode().skip(there["sample"]["__position__"].sample)
    torch.testing.assert_close(there["latents"], whole["latents.q8.safetensors"])


def test_the_code_of_the_reports_page_runs(tmp_path, monkeypatch, capsys):
    """Step 48,211 of a run that is made of epochs of 4 steps; of the log a step that it has."""
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "shards", [8, 8])
    loop, replayed, logged = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reports.md").read_text(), re.DOTALL)
    pipe = sp.stream("shards", shuffle=True).batch(4)
    there = {"sp": sp, "pipe": pipe, "train_step": len}
    exec(loop, there)
    assert "of the time" in capsys.readouterr().out
    there["state"] = there["loader"].state_dict()
    exec(replayed, there)
    assert len(there["batch"]["__key__"]) == 4
    first = [batch["__key__"] for batch in pipe.loader(log="trained_on")][2]
    exec(logged.replace("48_211, rank=3", "2"), there)
    assert there["batch"]["__key__"] == first
    assert len(there["rows"]) == 16


def test_the_code_of_the_sources_page_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sources.md").read_text(), re.DOTALL)
    exec(code.replace("/local/disk", str(tmp_path)), there := {"sp": sp})
    assert len(there["pipe"].source.shards) == 2000


def test_the_code_of_every_page_is_run_by_a_test():
    pages = [path for path in (ROOT / "docs").rglob("*.md") if "```python" in path.read_text()]
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(pages) > 15
    named = [rf'"{path.name}"|/{path.name}|code_of\("{path.stem}"\)' for path in pages]
    assert [pattern for pattern in named if not re.search(pattern, tests)] == []


def test_the_code_for_open_clip_runs(tmp_path, monkeypatch):
    """The other blocks of the page run in tests/trainers: test_diffusers.py, test_ray.py, test_datasets.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    samples = [(f"{i:02d}", {"jpg": photo(i, 80, 70), "txt": "a cat"}) for i in range(8)]
    (tmp_path / "shards" / "0.tar").write_bytes(shard(samples))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "drop-ins.md").read_text(), re.DOTALL)
    there = {"sp": sp, "tokenize": lambda text: [len(text)]}
    exec(blocks[0], there)
    dataloader = there["data"]["train"].dataloader
    assert (dataloader.num_batches, dataloader.num_samples) == (6, 24)
    assert [tuple(images.shape) for images, _ in dataloader] == [(4, 3, 64, 64)] * 6


def test_the_code_of_looking_runs_and_its_commands_are_there(tmp_path, monkeypatch):
    from streampipe.cli import COMMANDS

    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").write_bytes(shard([(f"{i}", {"jpg": photo(i), "txt": "a cat"}) for i in range(3)]))
    text = (ROOT / "docs" / "looking.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), {"sp": sp})
    assert (tmp_path / "preview.html").exists()
    assert set(re.findall(r"`streampipe (\w+)", text)) <= set(COMMANDS)


def test_the_code_of_converting_runs_and_its_options_are_there(tmp_path, monkeypatch, capsys):
    from streampipe.cli import parser

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(photo(i, 90, 64))
    text = (ROOT / "docs" / "converting.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), {})
    assert len(list(sp.stream("large/").where("bucket == '832x1216'"))) == 3
    with pytest.raises(SystemExit):
        parser(["pack"]).parse_args(["pack", "--help"])
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_code_of_packing_runs(tmp_path, monkeypatch):
    """Over images of four shapes; the kernel of flash-attention needs a GPU."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    samples = [(f"{i:02d}", {"jpg": photo(i, 160 + 80 * (i % 2), 100 + 64 * (i % 3))}) for i in range(12)]
    (tmp_path / "shards" / "0.tar").write_bytes(shard(samples))
    recipe, attention = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "packing.md").read_text(), re.DOTALL)
    there = {}
    exec(recipe + attention, there)
    pack = there["pack"]
    tokens = len(pack["segment_ids"])
    assert pack["patches"].shape == (tokens, 768)
    assert pack["cu_seqlens"][-1] == tokens == len(pack["places"])
    pytest.importorskip("torch.nn.attention.flex_attention")
    q = torch.randn(1, 2, tokens, 16)
    same = pack["segment_ids"][:, None] == pack["segment_ids"]
    wanted = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=same)
    torch.testing.assert_close(there["flex"](q, q, q, pack), wanted)


def test_the_code_of_the_editing_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edits").mkdir()
    image = photo(1, 64, 64)
    samples = [
        (f"{i}", {"jpg": image, "ref.0.jpg": photo(2, 48, 32), **({"ref.1.png": image} if i % 2 else {})})
        for i in range(8)
    ]
    (tmp_path / "edits" / "0.tar").write_bytes(shard(samples))
    there = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "editing.md").read_text(), re.DOTALL):
        exec(code, there)
    assert re.search(r"64x64 \+ ref.0 \d+x\d+ \+ ref.1 32x32 +4 samples", capsys.readouterr().out)
    assert {len(batch["ref"]) for batch in there["pipe"]} == {1, 2}


def test_what_stands_for_other_libraries_runs(tmp_path, monkeypatch):
    from streampipe.cli import COMMANDS

    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", [8, 8])
    samples = [{"__key__": str(i), "txt": "a cat"} for i in range(8)]
    pipe, a, b = (sp.stream("shards") for _ in range(3))
    there = {"sp": sp, "pipe": pipe, "a": a, "b": b, "fn": lambda x: x, "samples": samples, "remote": "shards"}
    there["loader"] = pipe.batch(4).loader()
    rows = re.findall(r"^\| .* \| (.*) \|$", (ROOT / "docs" / "others.md").read_text(), re.MULTILINE)
    found = {each for row in rows for each in re.findall(r"`([^`]*)`", row)}
    assert len(found) > 20
    for each in found:
        if each.startswith("streampipe "):
            assert each.split()[1] in COMMANDS
        elif isinstance(made := eval(each, dict(there)), sp.Pipeline) and "hf://" not in each:
            assert next(iter(made), None) is not None, each


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "llms.txt"], ids=lambda path: path.name)
def test_a_document_names_what_there_is(path):
    text = path.read_text()
    named = [ROOT / path for path in re.findall(r"`((?:tests|docs|examples|streampipe)/[\w/.]*)`", text)]
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    made = {"docs/decisions/index.md"}  # by docs/site/hooks.py
    linked = [path.parent / link for link in links if link not in made]
    assert [each for each in named + linked if not each.exists()] == []
    assert [name for name in re.findall(r"\bsp\.(\w+)", text) if not hasattr(sp, name)] == []


def test_the_readme_is_short_and_each_promise_leads_to_its_place():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 85
    headings = re.findall(r"^## (.*)$", (ROOT / "docs" / "guarantees.md").read_text(), re.MULTILINE)
    places = {re.sub(r"[^\w ]", "", heading).lower().replace(" ", "-") for heading in headings}
    promises = re.findall(r"^\| \[.*\]\(docs/guarantees\.md#([\w-]+)\) \|", text, re.MULTILINE)
    assert len(promises) >= 6
    assert set(promises) <= places


def test_the_list_of_tasks_names_each_command(capsys):
    from streampipe.cli import COMMANDS

    text = (ROOT / "docs" / "tasks.md").read_text()
    rows = "".join(line for line in text.splitlines() if line.startswith("| ") and "`streampipe " in line)
    assert [name for name in COMMANDS if f"`{name}`" not in rows and f"`streampipe {name}" not in rows] == []
