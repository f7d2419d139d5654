"""What a killed writer left is swept; and who writes a few shards does not name all that there could be."""

import streampipe as sp
from streampipe.write import job


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(job, "index_url", lambda url, real=job.index_url: named.append(url) or real(url))
    pipe = sp.from_iterable([{"__key__": "a", "txt": "a cat"}])
    pipe.write(str(tmp_path / "one" / "{:05d}.tar"), progress=False)
    assert len(named) < 10

    (tmp_path / "two").mkdir()
    ours = [f"{name}.host-1-0123456789abcdef.part" for name in ("00099.tar", "00099.index.parquet", "write.json")]
    others = [f"{name}.host-1-0123456789abcdef.part" for name in ("model.bin", "a.tar")]
    for name in (*ours, *others):
        (tmp_path / "two" / name).write_bytes(b"")
    pipe.write(str(tmp_path / "two" / "{:05d}.tar"), progress=False)
    assert sorted(path.name for path in (tmp_path / "two").iterdir() if path.suffix == ".part") == sorted(others)
