"""Bytes to images and values: pure functions, with no knowledge of pipelines."""

from streampipe.decoding.budget import MEMORY
from streampipe.decoding.codec import Codec, Colour, Data, ImageHeader, Pixels, Wanted
from streampipe.decoding.codecs import BUILT_IN, DEFAULT, Formats, codecs_of, recognise
from streampipe.decoding.deferred import DeferredBatch, DeferredImage, deferrable
from streampipe.decoding.fields import decode_field, is_image_field, is_mask, main_image, says_image
from streampipe.decoding.geometry import MARGIN, Area, Geometry, Size, contained, decide, resized, zoom_of
from streampipe.decoding.image import (
    MAX_PIXELS,
    EncodedImage,
    decode_image,
    delivered,
    fit_image,
    is_image,
    probe,
    size_of,
)
from streampipe.decoding.inflate import gunzip, unwrapped
from streampipe.decoding.resize import INTERPOLATIONS
from streampipe.decoding.text import decode_json, decode_text

__all__ = [
    "BUILT_IN",
    "DEFAULT",
    "INTERPOLATIONS",
    "MARGIN",
    "MAX_PIXELS",
    "MEMORY",
    "Area",
    "Codec",
    "Colour",
    "Data",
    "DeferredBatch",
    "DeferredImage",
    "EncodedImage",
    "Formats",
    "Geometry",
    "ImageHeader",
    "Pixels",
    "Size",
    "Wanted",
    "codecs_of",
    "contained",
    "decide",
    "decode_field",
    "decode_image",
    "decode_json",
    "decode_text",
    "deferrable",
    "delivered",
    "fit_image",
    "gunzip",
    "is_image",
    "is_image_field",
    "is_mask",
    "main_image",
    "probe",
    "recognise",
    "resized",
    "says_image",
    "size_of",
    "unwrapped",
    "zoom_of",
]
