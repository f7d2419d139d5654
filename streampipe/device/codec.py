"""The GPU's JPEG codec: nvJPEG by NVIDIA's nvImageCodec, which uses the chip's own JPEG engines if it has any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from streampipe.errors import ConfigError

PIP = "pip install 'streampipe[gpu]'"


class GpuCodec:
    """Decodes JPEG files on one GPU.

    Raises:
        ConfigError: nvImageCodec is not installed.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            from nvidia import nvimgcodec
        except ImportError as error:
            raise ConfigError(f"decode(device='cuda') needs nvImageCodec: {PIP}") from error
        self._device = device
        self._module: Any = nvimgcodec
        # libjpeg's own way of enlarging the colour channels, so that pixels are those of the CPU's codec
        self._decoder = nvimgcodec.Decoder(device_id=device.index, options=":fancy_upsampling=1")
        self._wanted = nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB, allow_any_depth=False
        )

    def decode(self, files: Sequence[np.ndarray], stream: torch.cuda.Stream) -> list[torch.Tensor | None]:
        """The images (height x width x 3, uint8) as the stream will see them; None where one cannot be decoded."""
        sources = [self._module.CodeStream(file) for file in files]
        found = self._decoder.decode(sources, params=self._wanted, cuda_stream=stream.cuda_stream)
        return [None if image is None else torch.as_tensor(image, device=self._device) for image in found]
