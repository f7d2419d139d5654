"""Bytes to images and values: pure functions, with no knowledge of pipelines."""

from streampipe.decoding.fields import decode_field, is_image_field, is_mask, main_image
from streampipe.decoding.geometry import MARGIN, Geometry, Size, decide, resized, zoom_of
from streampipe.decoding.header import ImageHeader, probe
from streampipe.decoding.image import MAX_PIXELS, EncodedImage, decode_image, delivered, fit_image, is_image, size_of
from streampipe.decoding.inflate import gunzip, unwrapped
from streampipe.decoding.resize import INTERPOLATIONS
from streampipe.decoding.sniff import sniff
from streampipe.decoding.text import decode_json, decode_text

__all__ = [
    "INTERPOLATIONS",
    "MARGIN",
    "MAX_PIXELS",
    "EncodedImage",
    "Geometry",
    "ImageHeader",
    "Size",
    "decide",
    "decode_field",
    "decode_image",
    "decode_json",
    "decode_text",
    "delivered",
    "fit_image",
    "gunzip",
    "is_image",
    "is_image_field",
    "is_mask",
    "main_image",
    "probe",
    "resized",
    "size_of",
    "sniff",
    "unwrapped",
    "zoom_of",
]
