"""Zephon: Parquet shards, a transform of each sample in its own threads or processes; batches are stacked here."""

from peers import once, rows_of

PHOTOS = ("our decode",)
SAMPLES = ("Parquet",)


def photos(data, decode, way):
    import torch

    pipeline = _pipeline(data).map_transform(lambda row: {"image": decode(row[data.field])}, parallelism=data.cores)
    pipeline = pipeline.batch(data.batch, drop_last=True).options(max_workers=data.cores)
    for batch in pipeline:
        yield torch.stack([torch.as_tensor(record.payload["image"]) for record in batch.records])


def samples(data, way):
    pipeline = _pipeline(data).batch(data.batch, drop_last=False)
    return sum(len(batch.records) for batch in pipeline)


def _pipeline(data):
    from zephon import Pipeline
    from zephon.io import Dataset
    from zephon.work import MixtureSpec, StaticMixtureWorkSource

    def make(folder):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(list(rows_of(data.urls)))
        for start in range(0, len(table), 128):
            shard = table.slice(start, 128)
            pq.write_table(shard, folder / f"{start:06d}.parquet", row_group_size=32, compression="none")

    place = once(data.folder / "parquet", make)
    source = StaticMixtureWorkSource(
        datasets=[Dataset.from_path("train", str(place))],
        mixture=MixtureSpec({"train": 1.0}),
        seed=0,
        shuffle_within_shard=False,
        stop_after_passes=1,
        chunk_size=200,  # what is left over by chunks is never given out
    )
    return Pipeline(source)
