"""datago: files of a folder, decoded, cropped and resized by threads in Rust; it has no batches: stacked here."""

import json
import os

from peers import once, rows_of

PHOTOS = ("its decoder, threads",)
SAMPLES = ()


def photos(data, decode, way):
    os.environ["DATAGO_MAX_TASKS"] = str(data.cores)
    import numpy as np
    from datago import DatagoClient, initialize_logging

    def make(folder):
        for row in rows_of(data.urls):
            (folder / f"{row['key'].decode()}.{data.field}").write_bytes(row[data.field])

    initialize_logging(log_level="warn")
    square = {"crop_and_resize": True, "default_image_size": 512, "downsampling_ratio": 512}
    square |= {"min_aspect_ratio": 1.0, "max_aspect_ratio": 1.0, "pre_encode_images": False}
    place = str(once(data.folder / "files", make))
    config = {"source_type": "file", "source_config": {"root_path": place, "random_sampling": False}}
    config |= {"image_config": square, "limit": data.number, "prefetch_buffer_size": 64, "samples_buffer_size": 64}
    client = DatagoClient(json.dumps(config))
    while True:
        batch = [client.get_sample() for _ in range(data.batch)]
        if batch[-1] is None:
            return
        yield np.stack([sample.image.to_numpy_array() for sample in batch])
