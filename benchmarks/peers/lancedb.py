"""LanceDB's StreamingDataset: a table on the local disk; its transform runs in its own threads."""

from peers import once, rows_of

PHOTOS = ("our decode, threads",)
SAMPLES = ("table, rows",)


def photos(data, decode, way):
    import decoders
    from lancedb.streaming import StreamingDataLoader

    def images(rows):
        return [decoders.our_decode(each.as_buffer()) for each in rows.column(data.field)]

    dataset = _dataset(data, columns=[data.field], transform=images, transform_parallelism=data.cores)
    return iter(StreamingDataLoader(dataset, batch_size=data.batch))


def samples(data, way):
    return sum(1 for _ in _dataset(data))


def _dataset(data, **options):
    import lancedb
    import pyarrow as pa
    from lancedb.streaming import StreamingDataset

    def make(folder):
        every = pa.RecordBatch.from_pylist(list(rows_of(data.urls)))
        lancedb.connect(str(folder)).create_table("train", pa.Table.from_batches([every]))

    place = once(data.folder / "lance", make)
    return StreamingDataset(lancedb.connect(str(place)).open_table("train"), shuffle=False, **options)
