"""Bytes to images and values: pure functions, with no knowledge of pipelines."""

from streampipe.decoding.fields import decode_field, is_image_field
from streampipe.decoding.header import ImageHeader, probe
from streampipe.decoding.image import MARGIN, decode_image
from streampipe.decoding.sniff import sniff

__all__ = ["MARGIN", "ImageHeader", "decode_field", "decode_image", "is_image_field", "probe", "sniff"]
