"""MosaicML Streaming: its own format on the local disk, and its own loader; by number, as a map-style dataset, too."""

from pathlib import Path

from peers import once, rows_of

PHOTOS = ("Pillow", "our decode")
SAMPLES = ("iterated", "by number")


def photos(data, decode, way):
    _torchvision()
    from streaming import StreamingDataLoader

    dataset = _dataset(data, way, _Images)
    dataset.decode, dataset.field = decode, data.field
    workers = data.cores if data.cores > 1 else 0
    return iter(StreamingDataLoader(dataset, batch_size=data.batch, num_workers=workers, drop_last=True))


def samples(data, way):
    _torchvision()
    from streaming import StreamingDataset

    dataset = _dataset(data, way, StreamingDataset)
    items = (dataset[i] for i in range(len(dataset))) if way == "by number" else dataset
    return sum(1 for _ in items)


def _Images(**options):
    from streaming import StreamingDataset

    class Images(StreamingDataset):
        def __getitem__(self, at):
            return self.decode(super().__getitem__(at)[self.field])

    return Images(**options)


def _dataset(data, way, kind):
    """Each way has a folder of its own, of links: processes that read one folder would be one job to it."""
    from streaming.base.util import clean_stale_shared_memory

    def make(folder: Path) -> None:
        from streaming import MDSWriter

        rows = rows_of(data.urls)
        first = next(rows)
        with MDSWriter(out=str(folder), columns=dict.fromkeys(first, "bytes")) as writer:
            writer.write(first)
            for row in rows:
                writer.write(row)

    def link(folder: Path) -> None:
        for file in once(data.folder / "mds", make).iterdir():
            (folder / file.name).hardlink_to(file)

    place = once(data.folder / f"mds-{way.replace(' ', '-')}-{data.cores}", link)
    if data.first and not getattr(_dataset, "cleaned", False):  # of jobs that were killed; it takes that of others, too
        clean_stale_shared_memory()
        _dataset.cleaned = True
    return kind(local=str(place), batch_size=data.batch, shuffle=False)


def _torchvision():
    """Beside torch for CPUs, torchvision from PyPI cannot load its operators, and its import fails for lack of two,
    which nobody here needs."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        _torchvision.kept = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            _torchvision.kept.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
