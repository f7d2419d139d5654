"""The pages of tasks are enough: their code solves each task as it stands there, and says what it says."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest

import streampipe as sp
from tests.data import photo, shard

ROOT = Path(__file__).parent.parent
TASKS = ROOT / "docs" / "tasks"
SIZES = ((96, 64), (64, 64), (64, 96))


def code_of(name):
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", (TASKS / f"{name}.md").read_text(), re.DOTALL)


def sample(number, **facts):
    width, height = SIZES[number % 3]
    facts = {"width": width, "height": height, **facts}
    text = "{" + ", ".join(f'"{name}": {value}' for name, value in facts.items()) + "}"
    return f"{number:05d}", {"jpg": photo(number, width, height), "txt": f"photo {number}", "json": text}


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A folder with ``shards/``: 4 shards of 12 photos of three shapes, as img2dataset leaves them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    for number in range(4):
        samples = [sample(12 * number + i, pwatermark=0.1 * (i % 10)) for i in range(12)]
        (tmp_path / "shards" / f"{number:05d}.tar").write_bytes(shard(samples))
    return tmp_path / "shards"


def test_every_page_of_a_task_is_in_the_list_and_in_the_site():
    pages = sorted(f"tasks/{path.name}" for path in TASKS.glob("*.md"))
    listed, site = (ROOT / "docs" / "tasks.md").read_text(), (TASKS.parent / "site" / "mkdocs.yml").read_text()
    assert [page for page in pages if f"]({page})" not in listed or f": {page}\n" not in site] == []


def test_the_options_of_commands_on_the_pages_are_there(capsys):
    from streampipe.cli import parser

    found = set()
    for page in (*TASKS.glob("*.md"), ROOT / "docs" / "tasks.md"):
        for name, rest in re.findall(r"streampipe (\w+)([^\n`#]*)", page.read_text()):
            found |= {(name, option) for option in re.findall(r"--[a-z][a-z-]+", rest)}
    assert len(found) > 6
    for name in {name for name, _ in found}:
        with pytest.raises(SystemExit):
            parser([name]).parse_args([name, "--help"])
        known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        assert {option for each, option in found if each == name} <= known


def test_laion(shards):
    (code,) = code_of("laion")
    url = "s3://bucket/laion/{00000..01999}.tar"
    assert url in code
    sp.index(shards, progress=False)
    (there := {}).update(url=None)
    with contextlib.redirect_stdout(None):
        code = code.replace(url, str(shards / "{00000..00003}.tar")).replace(
            "width >= 512 and height >= 512", "width >= 64"
        )
        exec(code, there)
    keys = [key for batch in there["pipe"] for key in batch["__key__"]]
    assert len(keys) == len(set(keys)) == 4 * (12 - 5), "0.5 and more are dropped"
    assert "indexed" in there["pipe"].explain()


def test_buckets(shards):
    (code,) = code_of("buckets")
    with contextlib.redirect_stdout(None):
        exec(code.replace('"sdxl"', "sp.Buckets([(64, 96), (64, 64), (96, 64)])"), there := {})
    assert {tuple(batch["image"].shape[2:]) for batch in there["pipe"]} == {(64, 96), (64, 64), (96, 64)}
    assert tuple(there["batch"]["time_ids"].shape) == (2, 6)
    rows = re.findall(r"`(\.\w+\([^`]*)`", (TASKS / "buckets.md").read_text())
    assert len(rows) >= 5
    for row in rows:
        head = "sp.stream('shards/')" if ".bucket" in row else "sp.stream('shards/').bucket('sdxl').decode()"
        eval(head + row, {"sp": sp})


def test_resume(shards):
    (code,) = code_of("resume")
    exec(code, there := {})
    loader = there["loader_for"](1, 0)
    third = [batch["__key__"] for _ in range(2) for batch in loader][2]
    other = there["loader_for"](2, 1)
    other.load_state_dict(there["json"].loads(there["saved"]))
    halves = [there["following"]["__key__"], next(iter(other))["__key__"]]
    assert [len(half) for half in halves] == [12, 12]
    assert sorted(halves[0] + halves[1]) == sorted(third)


def test_damage(shards, capsys):
    bad = shards / "00002.tar"
    data = bytearray(bad.read_bytes())
    at = data.index(b"\xff\xd8")
    data[at : at + 200] = bytes(200)
    bad.write_bytes(data)
    for code in code_of("damage"):
        exec(code, there := {"sp": sp})
    said = capsys.readouterr().out
    assert "00002.tar" in said
    assert "00024" in said.splitlines()[2]
    with pytest.raises(sp.DecodeError, match=r"00024.*00002\.tar"):
        list(sp.stream("shards/").decode(32))
    assert len(list(there["loader"])) == len(there["loader"]) == 12


def test_loss_spike(shards, capsys):
    first, second = code_of("loss-spike")
    exec(first, there := {})
    spike = there["spike"]
    exec(second, there)
    assert there["spike"]["__key__"] == spike["__key__"]
    assert (there["spike"]["image"] == spike["image"]).all()
    assert str(spike["__key__"]) in capsys.readouterr().out
    (condition,) = re.findall(r'`\.where\("(.*?)"\)`', (TASKS / "loss-spike.md").read_text())
    left = {each["__key__"] for each in sp.stream("shards/").where(condition)}
    assert len(left) == 47
    assert "00012" not in left


def test_s3(shards, monkeypatch):
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    boto = pytest.importorskip("botocore.session")
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    server.start()
    try:
        at = "http://{}:{}".format(*server.get_host_and_port())
        client = boto.get_session().create_client("s3", endpoint_url=at, region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        for path in sorted(shards.glob("*.tar")):
            client.put_object(Bucket="bucket", Key=f"data/{path.name}", Body=path.read_bytes())
        options = {"endpoint_url": at}
        sp.index("s3://bucket/data/{00000..00001}.tar", storage_options=options, progress=False)
        (code,) = code_of("s3")
        assert "http://localhost:9000" in code
        with contextlib.redirect_stdout(None):
            exec(code.replace("http://localhost:9000", at).replace("num_workers=2", "num_workers=0"), there := {})
        assert len(there["loader"]) == 6
        assert len(list(Path("kept").glob("*.shard"))) == 2  # a lock goes a moment after its shard is there
        assert "indexed" in there["loader"].explain()
    finally:
        server.stop()


def test_pictures_are_drawn_of_shapes_and_text_alone():
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
    assert len(pictures) >= 6
    shown = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    for path in pictures:
        text = path.read_text()
        assert f"pictures/{path.name}" in shown
        assert "<script" not in text
        assert "<title>" in text
        assert np.isfinite([float(x) for x in re.findall(r' (?:x|y|width|height)="([^"]*)"', text)]).all()
