"""SPDL: a pipeline of threads. Its own decoder makes a batch at once, as its page of best practices says; it needs the
shared libraries of FFmpeg on the system.
"""

PHOTOS = ("its decoder, threads", "our decode")
SAMPLES = ("iter_tarfile",)


def photos(data, decode, way):
    from spdl.pipeline import PipelineBuilder

    encoded = (content for name, content in _members(data) if name.endswith(data.field))
    pipeline = PipelineBuilder().add_source(encoded)
    if decode is None:
        _there(next(content for name, content in _members(data) if name.endswith(data.field)))
        pipeline = pipeline.aggregate(data.batch, drop_last=True)
        pipeline = pipeline.pipe(_batch, concurrency=data.cores, output_order="input")
    else:
        import torch

        pipeline = pipeline.pipe(decode, concurrency=data.cores, output_order="input")
        pipeline = pipeline.aggregate(data.batch, drop_last=True).pipe(torch.stack)
    running = pipeline.add_sink(2).build(num_threads=data.cores)
    with running.auto_stop():
        yield from running


def _batch(encoded):
    import spdl.io

    frame = {"scale_width": 512, "scale_height": 512, "crop_width": 512, "crop_height": 512, "pix_fmt": "rgb24"}
    wanted = spdl.io.get_video_filter_desc(**frame, scale_algo="bicubic", scale_mode="crop")
    return spdl.io.to_torch(spdl.io.load_image_batch(encoded, width=None, height=None, filter_desc=wanted))


def _there(image):
    """Its pipeline passes over what cannot be decoded, whatever the reason, so that is asked first."""
    try:
        _batch([image])
    except RuntimeError as error:
        raise RuntimeError("its decoder needs the shared libraries of FFmpeg (libavutil and others)") from error


def samples(data, way):
    """Files, not samples: it groups nothing. They are counted by the field."""
    return sum(name.endswith(data.field) for name, _ in _members(data))


def _members(data):
    from spdl.io import iter_tarfile

    for url in data.urls:
        with open(url, "rb") as file:
            yield from iter_tarfile(file)
