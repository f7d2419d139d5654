"""``decode``: bytes become images, texts, numbers and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, Sample
from streampipe.decoding import MAX_PIXELS, MEMORY, Colour, Formats
from streampipe.stages.decoder import Decoders, FieldDecoder
from streampipe.stages.framing import Crop, Sizes, passed
from streampipe.stages.stage import stage
from streampipe.stages.values import check_number
from streampipe.threads import ordered


def _check(threads: Any, **options: Any) -> None:
    check_number("decode", "threads", threads, 0, optional=True)
    FieldDecoder(Run(stage="decode"), **options)


def _own_size(options: Mapping[str, Any]) -> Any:
    size = options["size"]
    return None if isinstance(size, Mapping) else size  # by field: the main image may have its bucket's


@stage(rows="each", state="nothing", takes="samples", views=True, check=_check, bytes_out=True, own_size=_own_size)
def decode(
    samples: Iterable[Sample],
    size: Sizes = None,
    *,
    crop: Crop = "center",
    flip: float = 0.0,
    upscale: str | float = "allow",
    mode: str = "cover",
    scale: tuple[float, float] = (1.0, 1.0),
    output: str = "tensor",
    background: Colour = (255, 255, 255),
    alpha: str | None = None,
    icc: str = "srgb",
    damaged: str = "error",
    device: str | None = None,
    formats: Formats = (),
    max_pixels: int = MAX_PIXELS,
    memory: int = MEMORY,
    margin: float | str | None = "default",
    interpolation: str | Mapping[str, str] = "bicubic",
    rounding: str = "round",
    original_size: str = "image",
    decoders: Decoders | None = None,
    fields: tuple[str, ...] | None = None,
    threads: int | None = None,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """Every field decoded: images by their content, other fields by the last part of their name.

    Where images are brought to a size, one decision about crop and flip is made for all images of a sample, so control
    images and masks stay aligned, whatever their resolution. It is recorded, sizes as (height, width):

    - ``original_size``: of the main image (``image``, or ``jpg`` and the like), after EXIF orientation;
    - ``crop_top_left``: (top, left) of the result in the resized, and then mirrored, picture;
    - ``target_size``, ``flipped``;
    - ``time_ids``: original size, crop and target as an int64 tensor of shape (6,), as SDXL is conditioned on them, in
      diffusers' order; (batch, 6) in a batch.

    Several images in one field (see ``collect``) are a list of images, and what is recorded of them lists.

    An image with a size of its own has a record of its own (``control.original_size``, ``control.crop_top_left``,
    ``control.target_size``) and the sample's flip. So has one that is decoded in another stage than the main image.

    Behind ``clips`` a video becomes the frames of its sample's clip, frames x 3 x height x width (numpy: frames x
    height x width x 3), and only they are decoded. All videos and images of the sample share the clip's times and the
    main video's geometry. Of a sample without a video the images are one frame each. ``clip_start`` (seconds) and
    ``clip_fps`` are recorded. Videos need ``pip install 'streampipe[video]'``.

    Fields named ``mask``, ``masklabel`` or ``seg`` are labels: greys are 1 x height x width, with the values that are
    stored (more than 8 bits: int32), colours 3 x height x width; transparent pixels are 0.

    Args:
        size: images are brought to this size, an edge or (height, width): scaled to cover it, then cropped, in one
            antialiased resize straight from the codec's smallest sufficient scale. None: the size that ``bucket`` gave
            the sample (``__size__``), else each image's own. Or sizes by field, as in ``{"image": 512, "control":
            sp.Area(1024 * 1024)}``: the fields named are cut by themselves, None leaves one as large as it is; the
            others have the main image's size and place.
        crop: where the crop is taken: ``"center"``, ``"random"``, seeded by (seed, epoch, key, stage), or a function
            ``crop(room, sample)`` or ``crop(room, sample, rng)`` that gives its (top, left) in the resized picture, in
            pixels. ``room`` has ``size``, ``resized`` and ``target``, the sample its decoded fields without images.
        flip: the share of samples to mirror left to right.
        upscale: what to do with images smaller than the size: ``"allow"``; ``"drop"`` the sample; or a number, to drop
            it where the image would be enlarged more than so many times. Where the tier is planned, the slot of a
            dropped sample is filled from its batch; ``where("width >= 512 and height >= 512")`` costs nothing.
        mode: ``"cover"``: the size is filled, what is over is cut away; ``"contain"``: the whole picture, as large as
            it is inside the size, and no larger; ``"pad"``: that, in the middle of ``background`` (masks: 0) of the
            size.
        scale: the least and the most of the largest crop's edges to take, as in (0.5, 1.0), drawn for each sample.
        output: images as ``"tensor"`` (uint8, 3 x height x width, channels-last memory), ``"numpy"`` (height x width
            x 3) or ``"pil"``.
        background: the colour (red, green, blue) behind transparent pixels.
        alpha: ``"mask"`` gives the main image's alpha channel too, as the field ``mask`` (1 x height x width; 255
            where there is none).
        icc: ``"srgb"``: colours with an ICC profile are brought to sRGB, as browsers show them; ``"ignore"``: they are
            as they are stored.
        damaged: ``"error"``: an image of which a part is missing or wrong is an error; ``"accept"``: JPEGs are taken as
            far as they can be decoded, and counted.
        device: ``"cuda"``: JPEGs are decoded on the GPU, by ``sp.to_device(loader, "cuda")``, which the loader must be
            given to. Workers read headers, decide, and hand bytes over; until then a field is a ``DeferredImage``, so
            no stage behind can look at pixels. What the GPU's codec does not take (other formats, other colours than
            sRGB, masks) is decoded here. Damage inside a JPEG is found as far as the GPU's codec finds it.
        formats: formats that are decoded besides JPEG, PNG, WebP, GIF and AVIF: ``"bmp"``, ``"tiff"``, ``"jpeg2000"``,
            ``"heic"``, ``"jxl"`` (the last two need ``pip install 'streampipe[heic]'``, ``'streampipe[jxl]'``), the
            name of one that another package brings, or a ``Codec``.
        max_pixels: larger images are refused, by their header, before anything is allocated.
        memory: bytes that the images which are decoded at the same time in this process may take together; what does
            not fit waits. An image that needs more is decoded alone.
        margin: how many times larger than needed the codec's scaled image must stay; None decodes at full scale.
        interpolation: ``"bicubic"``, ``"bilinear"``, ``"lanczos"``, ``"area"`` (all antialiased; the last two are
            slower) or ``"nearest"``; or one by field name, as in ``{"mask": "bilinear"}``. Labels take the nearest
            pixel.
        rounding: ``"truncate"``: ``crop_top_left`` and ``time_ids`` are those of diffusers' SDXL script, which cuts off
            fractions of the resized edges; they differ by one for half of all sizes.
        original_size: ``"json"`` takes ``original_width`` and ``original_height`` (or ``WIDTH``, ``HEIGHT``) of the
            json member, for shards that hold resized images; ``"image"`` the size of the image in the shard.
        decoders: functions from bytes to anything, by field name (``"seg.png"``) or extension (``"png"``); they come
            before the built-in ones. This is how formats that are refused for safety (pickle) can be allowed.
        fields: decode only these (``"jpg;png"`` is any of the two); others stay bytes.
        threads: decode so many samples at once, in order; the codecs release the GIL.

    Counted in the report: samples dropped as too small, animations of which the first frame was taken, colours that
    were converted, damaged images that were accepted, json members that state another size than the image has.

    Raises:
        DecodeError: a field's bytes are damaged, too large, or not what they claim to be; or a sample's images are not
            of one shape and so cannot be cut as one.
        UnsafeFormat: a field in a format that can run code.

    >>> list(decode()([{"__key__": "a", "txt": b"a cat", "cls": b"3"}]))
    [{'__key__': 'a', 'txt': 'a cat', 'cls': 3}]
    """
    decoder = FieldDecoder(
        run,
        size=size,
        crop=crop,
        flip=flip,
        upscale=upscale,
        mode=mode,
        scale=scale,
        output=output,
        background=background,
        alpha=alpha,
        icc=icc,
        damaged=damaged,
        device=device,
        formats=formats,
        max_pixels=max_pixels,
        memory=memory,
        margin=margin,
        interpolation=interpolation,
        rounding=rounding,
        original_size=original_size,
        decoders=decoders,
        fields=fields,
    )
    yield from passed(ordered(decoder.attempt, samples, threads, run=run), run)
