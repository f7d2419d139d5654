"""streampipe."""

import decoders
from data import indexed

import streampipe as sp

PHOTOS = ("decode, threads", "decode, workers", "our decode in map, threads", "our decode in map, workers")
SAMPLES = ("batches of views", "batches", "one by one", "sequential")


def photos(data, decode, way):
    pipe = sp.stream(data.urls)
    pipe = pipe.decode(decoders.SIZE) if way.startswith("decode") else pipe.map(decoders.our_decode, data.field)
    pipe = pipe.select(data.field).batch(data.batch)
    if data.cores == 1:
        loader = pipe.loader(num_workers=0)
    elif "threads" in way:
        loader = pipe.loader(num_workers=0, threads=data.cores)
    else:
        loader = pipe.loader(num_workers=data.cores)
    return (batch[data.field] for batch in loader)


@sp.stage(rows="each", state="nothing", views=True, bytes_out=True)
def views(samples):
    """Fields as views of what was read, for a consumer that takes any buffer."""
    yield from samples


def samples(data, way):
    if way == "sequential":
        return sum(1 for _ in sp.stream(data.urls, tier="sequential"))
    pipe = sp.stream(data.urls, index=indexed(data.folder, data.urls))
    if way == "one by one":
        return sum(1 for _ in pipe)
    pipe = pipe.apply(views()) if way == "batches of views" else pipe
    return sum(len(batch["__key__"]) for batch in pipe.batch(data.batch))
