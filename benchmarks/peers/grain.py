"""Grain: ArrayRecord files, read by number; on several cores worker processes or threads."""

import pickle

from peers import once, rows_of

PHOTOS = ("our decode, threads", "our decode, workers")
SAMPLES = ("ArrayRecord",)


def photos(data, decode, way):
    import decoders
    import grain
    import torch

    dataset = grain.MapDataset.source(_source(data)).map(lambda record: pickle.loads(record)[data.field])
    dataset = dataset.map(decoders.our_decode).batch(data.batch, drop_remainder=True, batch_fn=torch.stack)
    if "threads" in way:
        threads = data.cores if data.cores > 1 else 0
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))
    alone = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    return iter(alone.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.cores, per_worker_buffer_size=2)))


def samples(data, way):
    import grain

    alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    dataset = grain.MapDataset.source(_source(data)).map(pickle.loads).to_iter_dataset(alone)
    return sum(1 for _ in dataset)


def _source(data):
    import grain

    def make(folder):
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(folder / "data.array_record"), "group_size:1,uncompressed")
        for row in rows_of(data.urls):
            writer.write(pickle.dumps(row))
        writer.close()

    return grain.sources.ArrayRecordDataSource(str(once(data.folder / "array_record", make) / "data.array_record"))
