"""Values to the bytes of a field: the counterpart of ``decode``, in formats that cannot run code.

The last part of a field's name says which format, as in decoding. Where it names none, the kind of the value decides,
and the format is added to the name: an array in ``latent`` becomes ``latent.npy``. ``latent.q8`` asks for 8 bits.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from streampipe.context import where
from streampipe.decoding import conditioning
from streampipe.decoding.conditioning import ALONE, Q8, Conditioning
from streampipe.decoding.extensions import NUMBERS, TEXTS, UNSAFE
from streampipe.decoding.fields import KNOWN
from streampipe.decoding.several import apart, list_of
from streampipe.errors import StageError

QUALITY = 95
"""Of JPEGs, which are written without chroma subsampling."""

_IMAGES = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}


def encode_sample(sample: Mapping[str, Any], quality: int = QUALITY) -> dict[str, bytes]:
    """All fields of a sample as bytes, under the names they get. Metadata (``__key__``, ...) is left out.

    Raises:
        StageError: a field cannot be encoded, or two would get one name; it names sample and field.

    >>> encode_sample({"__key__": "a", "txt": "a cat", "size": (3, 2), "jpg": b"..."})
    {'txt': b'a cat', 'size.json': b'[3, 2]', 'jpg': b'...'}
    """
    fields: dict[str, bytes] = {}
    for name, value in apart(sample).items():
        if not isinstance(name, str):
            raise StageError(f"stage 'write', {where(sample)}: a field's name is a text, not {name!r:.40}; rename it")
        if name.startswith("__"):
            continue
        name = name.removesuffix(".image") if list_of(name) else name
        try:
            whole_name, data = encode_field(name, value, quality)
        except StageError as error:
            raise StageError(f"stage 'write', {where(sample)}: {error}") from error
        if whole_name in fields or (whole_name != name and whole_name in sample):
            raise StageError(f"stage 'write', {where(sample)}: two fields would be called {whole_name!r}; rename one")
        fields[whole_name] = data
    return fields


def encode_field(name: str, value: Any, quality: int = QUALITY) -> tuple[str, bytes]:
    """The name and the bytes of a field. ``decode_field`` gives the value back, but for what an image format loses.

    Raises:
        StageError: there is no safe format for such a value, or not under this name.

    >>> encode_field("cls", 3), encode_field("latent", np.zeros(2, np.float16))[0]
    (('cls', b'3'), 'latent.npy')
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return name, bytes(value)
    if name.lower().endswith((Q8, ".q8")):
        return _eight(name, value)
    extension = name.rpartition(".")[2].lower()
    if isinstance(value, Conditioning) and extension != "safetensors":
        return f"{name}.safetensors", conditioning.encode(value, eight=False)  # a field "text" of them is no text
    if extension == "gz":
        inner, data = encode_field(name[: -len(".gz")], value, quality)
        return f"{inner}.gz", gzip.compress(data, mtime=0)
    if extension in UNSAFE:
        raise StageError(f"field {name!r}: a .{extension} file can run code when read; call it .npy or .safetensors")
    if extension in KNOWN and extension not in _ENCODERS:
        raise StageError(f"field {name!r}: .{extension} is read, but not written: encode it to bytes, or call it .json")
    if extension not in _ENCODERS:
        extension = _format_of(name, value)
        name = f"{name}.{extension}"
    try:
        return name, _ENCODERS[extension](value, extension, quality)
    except (TypeError, ValueError) as error:
        raise StageError(f"field {name!r}: a {_kind(value)} cannot be written as .{extension} ({error})") from error


def _eight(name: str, value: Any) -> tuple[str, bytes]:
    """A field whose name asks for 8 bits."""
    try:
        data = conditioning.encode(value, eight=True)
    except (TypeError, ValueError) as error:
        advice = f"call the field {name.partition('.')[0]!r} to keep it exactly"
        raise StageError(f"field {name!r}: a {_kind(value)} cannot be written in 8 bits ({error}); {advice}") from error
    return name if name.lower().endswith(Q8) else f"{name}.safetensors", data


def _format_of(name: str, value: Any) -> str:
    """The format for a value whose field's name does not say."""
    if isinstance(value, str):
        return "txt"
    if isinstance(value, Image.Image) or _is_image(value):
        return "png"
    if isinstance(value, torch.Tensor) and value.dtype in _NOT_NUMPY:
        return "safetensors"
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return "npy"
    if isinstance(value, Mapping) and value and all(isinstance(each, _ARRAYS) for each in value.values()):
        return "safetensors"
    if value is None or isinstance(value, (bool, int, float, list, tuple, Mapping, np.generic)):
        return "json"
    raise StageError(
        f"field {name!r} is a {_kind(value)}, which has no format here; make it bytes, text, numbers, an image, an "
        f"array or a tensor, or leave it out with select(...)"
    )


def _is_image(value: Any) -> bool:
    """uint8 tensors as decode makes them (3 x height x width), and arrays as PIL takes them (height x width x 3)."""
    if isinstance(value, torch.Tensor):
        return value.dtype == torch.uint8 and value.dim() == 3 and value.shape[0] in (1, 3, 4)
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in (1, 3, 4)


def _text(value: Any, extension: str, quality: int) -> bytes:
    if not isinstance(value, str):
        raise TypeError("text is wanted")
    return value.encode("utf-8")


def _number(value: Any, extension: str, quality: int) -> bytes:
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError("a whole number is wanted")
    return b"%d" % int(value)


def _json(value: Any, extension: str, quality: int) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    _check_names(value)
    return text.encode("utf-8")


def _check_names(value: Any) -> None:
    """Refuse objects whose names are no texts: JSON would make texts of them, and of 1 and "1" the same one."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if not isinstance(name, str):
                raise TypeError(f"its name {name!r} would come back as a text; make it one")
            _check_names(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _check_names(each)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "mM":  # some would become numbers
        raise TypeError(f"a {_kind(value)} is a time: make it a number or a text, or an array in .npy")
    if isinstance(value, (np.generic, np.ndarray)) or (isinstance(value, torch.Tensor) and value.numel() <= 1024):
        return value.tolist()
    raise TypeError(f"a {_kind(value)} is no JSON")


def _npy(value: Any, extension: str, quality: int) -> bytes:
    if isinstance(value, torch.Tensor):
        if value.dtype in _NOT_NUMPY:
            raise TypeError(f"numpy has no {value.dtype}: call the field .safetensors, or cast it")
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("its mask would be lost: fill it, and write the mask as a field of its own")
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError("Python objects are no array")
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    return file.getvalue()


def _npz(value: Any, extension: str, quality: int) -> bytes:
    if not isinstance(value, Mapping):
        raise TypeError("a dict of arrays is wanted")
    _check_names(value)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, each in value.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy(each, extension, quality))
    return file.getvalue()


def _safetensors(value: Any, extension: str, quality: int) -> bytes:
    if isinstance(value, Conditioning):
        return conditioning.encode(value, eight=False)
    try:
        from safetensors.torch import save
    except ImportError:
        raise StageError("safetensors fields need one more package: pip install 'streampipe[safetensors]'") from None
    alone = not isinstance(value, Mapping)
    tensors = {ALONE: value} if alone else value
    _check_names(tensors)
    whole: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, each in tensors.items():
        tensor = _tensor(each).detach().cpu().contiguous()
        if tensor.numel() and (place := tensor.untyped_storage().data_ptr()) in places:
            tensor = tensor.clone()  # the format has no two tensors of one memory
        elif tensor.numel():
            places.add(place)
        whole[name] = tensor
    try:
        return bytes(save(whole))
    except KeyError as error:
        raise TypeError(f"the format has no {error.args[0]}") from None


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("its mask would be lost: fill it, and write the mask as a tensor of its own")
    return torch.from_numpy(np.ascontiguousarray(value)).reshape(np.shape(value))  # which makes rows of single numbers


def _image(value: Any, extension: str, quality: int) -> bytes:
    image = value if isinstance(value, Image.Image) else _from_pixels(value)
    options: dict[str, dict[str, Any]] = {
        "PNG": {"compress_level": 3},
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},
    }
    file = io.BytesIO()
    kind = _IMAGES[extension]
    if kind != "PNG" and image.mode.startswith(("I", "F")):  # Pillow would clip them, to white mostly
        raise ValueError(f"{kind} has 8 bits, and its pixels have more: call the field .png")
    try:
        image.save(file, kind, **options[kind])
    except OSError as error:  # a mode that the format does not have
        raise ValueError(str(error)) from error
    return file.getvalue()


def _from_pixels(value: Any) -> Image.Image:
    if isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.dim() in (2, 3):
        pixels = value.detach().cpu().numpy()
        pixels = pixels if value.dim() == 2 else pixels.transpose(1, 2, 0)
    elif isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        pixels = value
    elif (labels := _labels_of_16_bits(value)) is not None:
        return Image.fromarray(labels)
    else:
        raise TypeError(
            "an image is uint8: 3 x height x width as a tensor, height x width x 3 as an array; or labels of 16 bits"
        )
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _labels_of_16_bits(value: Any) -> np.ndarray | None:
    """What ``decode`` gives for a mask of 16 bits, as it was stored: height x width, uint16; None for anything else."""
    pixels = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    if not isinstance(pixels, np.ndarray) or pixels.dtype not in (np.int32, np.uint16) or pixels.ndim not in (2, 3):
        return None
    if pixels.ndim == 3:
        channel = 0 if isinstance(value, torch.Tensor) else 2
        if pixels.shape[channel] != 1:
            return None
        pixels = pixels.squeeze(channel)
    return pixels.astype(np.uint16) if pixels.size and 0 <= pixels.min() <= pixels.max() < 1 << 16 else None


def _kind(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"{value.dtype} {type(value).__name__} of shape {tuple(value.shape)}"
    return type(value).__name__


_ARRAYS = (torch.Tensor, np.ndarray)
_NOT_NUMPY = frozenset(
    getattr(torch, name)
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if hasattr(torch, name)
)
_ENCODERS: dict[str, Callable[[Any, str, int], bytes]] = {
    **dict.fromkeys(TEXTS, _text),
    **dict.fromkeys(NUMBERS, _number),
    **dict.fromkeys(("json", "jsn"), _json),
    **dict.fromkeys(_IMAGES, _image),
    "npy": _npy,
    "npz": _npz,
    "safetensors": _safetensors,
}
