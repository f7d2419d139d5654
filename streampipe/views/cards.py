"""Cards: what a page shows of a sample: a small picture, texts, numbers, and the crop that training would see.

The crop is not guessed: it is the decision of the pipeline's own ``decode``, a function of seed, epoch and key.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from streampipe.context import Sample
from streampipe.decoding import EncodedImage, Geometry, Size, main_image
from streampipe.decoding.movie import main_video, probe_video, videos_in
from streampipe.decoding.several import apart
from streampipe.errors import SampleError
from streampipe.index.facts import facts_of
from streampipe.plan.buckets import Buckets
from streampipe.samples import size_of
from streampipe.stages.decoder import FieldDecoder
from streampipe.stages.framing import SAME_SHAPE
from streampipe.views.picture import layer, thumbnail, video_still

_LONGEST_TEXT, _MOST_FACTS = 4000, 60
_KNOWN = ("key", "width", "height", "caption_dropped")


@dataclass(frozen=True)
class CardMaker:
    """Makes cards of samples whose images are not decoded yet.

    Args:
        decoder: the pipeline's ``decode``: which fields are images, and what becomes of them.
        buckets: those of the pipeline, if it has some.
        edge: of the small pictures, at most, in pixels.
        caption: the field with the caption.
    """

    decoder: FieldDecoder
    buckets: Buckets | None = None
    edge: int = 192
    caption: str = "caption"

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """A card, as plain JSON. What is wrong with the sample's images is on it, and no error."""
        sample = dict(apart(sample))
        text = str(sample.get(self.caption) or "")
        fields = {name: size_of(value) for name, value in sample.items() if _is_stored(name, value)}
        card: dict[str, Any] = {
            "key": str(sample.get("__key__", "")),
            "url": str(sample.get("__url__", "")),
            "caption": text[:_LONGEST_TEXT],
            "characters": len(text),
            "fields": fields,
            "facts": _facts(sample),
        }
        try:
            card |= self._pictures(sample)
        except SampleError as error:
            card["error"] = str(error)
        return card

    def _pictures(self, sample: Sample) -> dict[str, Any]:
        """The images of a sample, small, and what becomes of the main one."""
        decoder, edge = self.decoder, self.edge
        videos = videos_in(sample, gifs="__clip__" in sample)
        if videos:
            return self._video(sample, main_video(videos))
        names = decoder.image_fields(sample)
        if not names:
            return {}
        options: dict[str, Any] = {"max_pixels": decoder.max_pixels, "codecs": decoder.codecs}
        images = {name: EncodedImage(sample[name], **options) for name in names}
        main = main_image(names)
        size = images[main].size
        layers = [
            [name, layer(name, image, edge, decoder.damaged), _is_alike(image.size, size)]
            for name, image in images.items()
            if name != main
        ]
        shown = {"image": main, "height": size[0], "width": size[1], "layers": layers}
        shown["picture"] = thumbnail(images[main], edge, decoder.damaged)
        return shown | self._framed(sample, images, main, size)

    def _video(self, sample: Sample, main: str) -> dict[str, Any]:
        """A frame of a video, the first of a clip, small, and what becomes of it."""
        clip = sample.get("__clip__")
        height, width = probe_video(sample[main]).size
        picture = video_still(sample[main], self.edge, None if clip is None else clip.start)
        shown = {"image": main, "height": height, "width": width, "layers": [], "picture": picture}
        return shown | self._framed(sample, [main], main, (height, width))

    def _framed(self, sample: Sample, images: Collection[str], main: str, size: Size) -> dict[str, Any]:
        """The bucket of a sample, and the box of its main image that is taken."""
        told = {name: value for name, value in sample.items() if name not in images}
        found: dict[str, Any] = {}
        if self.buckets is not None:
            clip = sample.get("__clip__")
            number = self.buckets.of(*size, 1 if clip is None else clip.frames)
            if number < 0:
                return {"left_out": self.buckets.outside}
            bucket = self.buckets.sizes[number]
            told["__size__"] = bucket[:2]
            found["bucket"] = " x ".join(map(str, bucket))
        frames = self.decoder.framing.frames(told, {main: size}, main)
        if frames is None:
            return {**found, "left_out": "it would be enlarged more than upscale= allows"}
        geometry, flipped, _ = frames[main]
        return found | ({"flipped": True} if flipped else {}) | (_box(geometry) if geometry else {})


def _box(geometry: Geometry) -> dict[str, Any]:
    """The box as shares of the whole picture: left, top, width, height; and the size that it is brought to."""
    rows, columns = geometry.size
    box = geometry.left / columns, geometry.top / rows, geometry.width / columns, geometry.height / rows
    return {"crop": [round(each, 5) for each in box], "target": list(geometry.result)}


def _is_stored(name: str, value: Any) -> bool:
    return not name.startswith("__") and isinstance(value, (bytes, bytearray, memoryview))


def _is_alike(size: tuple[int, int], main: tuple[int, int]) -> bool:
    """Whether an image has the main image's shape, so that it can be laid over it."""
    ratio = size[0] * main[1] / (size[1] * main[0])
    return 1 / SAME_SHAPE <= ratio <= SAME_SHAPE


def _facts(sample: Sample) -> dict[str, Any]:
    """The scalars that a condition may ask of a sample, but those that the card has anyway."""
    found = facts_of({name: value for name, value in sample.items() if name != "caption"}, sizes=False)
    shown = [(name, value) for name, value in found.items() if name not in _KNOWN]
    return {name: value[:300] if isinstance(value, str) else value for name, value in shown[:_MOST_FACTS]}
