"""Bytes to images and values: pure functions, with no knowledge of pipelines."""

from streampipe.decoding.fields import decode_field, gunzip, is_image_field, is_mask, main_image
from streampipe.decoding.geometry import MARGIN, Geometry, Size, decide, resized, zoom_of
from streampipe.decoding.header import ImageHeader, probe
from streampipe.decoding.image import MAX_PIXELS, EncodedImage, decode_image, delivered, fit_image, is_image, size_of
from streampipe.decoding.resize import INTERPOLATIONS
from streampipe.decoding.sniff import sniff

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
    "zoom_of",
]
