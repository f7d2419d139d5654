"""LitData: its own chunks on the local disk, and its own loader."""

from peers import once, rows_of

PHOTOS = ("Pillow", "our decode")
SAMPLES = ("chunks",)


def photos(data, decode, way):
    from litdata import StreamingDataLoader, StreamingDataset

    class Images(StreamingDataset):
        def __getitem__(self, at):
            return decode(super().__getitem__(at)[data.field])

    dataset = Images(str(_chunks(data)), shuffle=False, drop_last=True)
    workers = data.cores if data.cores > 1 else 0
    return iter(StreamingDataLoader(dataset, batch_size=data.batch, num_workers=workers))


def samples(data, way):
    from litdata import StreamingDataset

    return sum(1 for _ in StreamingDataset(str(_chunks(data)), shuffle=False))


def _chunks(data):
    def make(folder):
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(folder), chunk_bytes="64MB")
        for number, row in enumerate(rows_of(data.urls)):
            writer[number] = row
        writer.done()
        writer.merge()

    return once(data.folder / "lit", make)
