"""Hugging Face datasets: Arrow files that are mapped, a transform on whole batches, torch's loader."""

from peers import once, rows_of

PHOTOS = ("Pillow", "our decode")
SAMPLES = ("Arrow, batches",)


def photos(data, decode, way):
    from torch.utils.data import DataLoader

    dataset = _table(data).with_transform(lambda rows: {"image": [decode(each) for each in rows[data.field]]})
    workers = data.cores if data.cores > 1 else 0
    loader = DataLoader(dataset, batch_size=data.batch, num_workers=workers, drop_last=True)
    return (batch["image"] for batch in loader)


def samples(data, way):
    return sum(len(batch["key"]) for batch in _table(data).iter(batch_size=data.batch))


def _table(data):
    import datasets

    datasets.disable_progress_bars()

    def make(folder):
        from datasets.arrow_writer import ArrowWriter

        rows = rows_of(data.urls)
        first = next(rows)
        features = datasets.Features({name: datasets.Value("binary") for name in first})
        with ArrowWriter(features=features, path=str(folder / "data.arrow"), writer_batch_size=100) as writer:
            writer.write(first)
            for row in rows:
                writer.write(row)
            writer.finalize()

    return datasets.Dataset.from_file(str(once(data.folder / "arrow", make) / "data.arrow"))
