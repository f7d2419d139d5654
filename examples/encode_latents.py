"""Images and captions to latents and text embeddings, once, so that training reads numbers in place of pixels.

    python examples/encode_latents.py                                   # draws a few images; tiny models, on the CPU
    python examples/encode_latents.py SHARDS OUT --buckets sdxl --device cuda --dtype bfloat16 \\
        --vae madebyollin/sdxl-vae-fp16-fix --text-encoder PATH --tokenizer PATH --threads 8

Killed? Run it again: what is done is kept. Several GPUs: torchrun --nproc-per-node 8 examples/encode_latents.py ...
Each sample of the output has

- ``latents.npy``: float16, 2 x channels x height / 8 x width / 8: mean and standard deviation of what the VAE says of
  the image. Not a draw from it: training draws anew in every epoch, z = mean + std * eps (see train_from_latents.py).
- ``text_embeds.npy``, ``pooled.npy``: float16, tokens x width and width: the text encoder's last layer and its summary.
  With ``--t5``: ``t5_embeds.npy`` (for T5-XXL 4 MB a caption). Captions that change in training (dropout, tags) must be
  encoded there: leave them out with ``--no-text``.
- ``txt``: the caption. ``json``: the geometry, (height, width) and (top, left) as SDXL is conditioned on them;
  ``width`` and ``height`` of what was encoded, so that training may use the same buckets; the VAE's ``scaling_factor``
  and ``shift_factor``; and ``spec``, a hash of models, sizes and dtype: latents of two specifications must not
  meet in one training, and ``where("spec == '...'")`` tells them apart without reading any.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import tiny_models
import torch
from make_images import make_images

import streampipe as sp
from streampipe.pack import pack
from streampipe.write.spec import describe

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def encode_images(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """uint8 images (batch x 3 x height x width) to mean and standard deviation (batch x 2 x channels x h x w)."""
    posterior = vae.encode(images.float() / 127.5 - 1).latent_dist
    latents = torch.stack([posterior.mean, posterior.std], 1).half()
    if not latents.isfinite().all():
        raise ValueError("the VAE overflows in this dtype: use --dtype bfloat16 or float32, or a VAE made for float16")
    return latents


def encode_ids(encoder: Any, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Token ids to the last layer's vectors and, where the encoder has it, one for the whole text."""
    found = encoder(ids)
    pooled = getattr(found, "pooler_output", None)
    return (found.last_hidden_state.half(), *(() if pooled is None else (pooled.half(),)))


def add_texts(batch: dict, tokenizer: Any, encode: Any, names: tuple[str, ...], length: int) -> dict:
    """Tokenise and encode a batch's captions."""
    padded = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    found = encode(tokenizer(batch["text"], **padded).input_ids)
    return {**batch, **dict(zip(names, found, strict=False))}


def finish(sample: dict, facts: dict) -> dict:
    """What is kept of a sample, in few members."""
    geometry = {name: sample[name] for name in ("original_size", "crop_top_left", "target_size", "flipped")}
    height, width = sample["target_size"]
    arrays = {name: value for name, value in sample.items() if name.endswith(".npy")}
    return {
        "latents.npy": sample["image"],
        **arrays,
        "txt": sample["text"],
        "json": {"width": width, "height": height, **geometry, **facts},
    }


def pipeline(shards: str | Path, given: argparse.Namespace) -> sp.Pipeline:
    """Shards of images and captions to samples of latents and embeddings."""
    device = (
        f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if given.device == "cuda" else given.device
    )  # torchrun says which
    vae = tiny_models.vae(given.vae)
    image = sp.inference(model=vae, device=device, autocast=DTYPES[given.dtype])(encode_images)
    texts = []
    if not given.no_text:
        clip, words = tiny_models.clip(given.text_encoder), tiny_models.clip_tokenizer(given.tokenizer)
        texts.append((clip, words, ("text_embeds.npy", "pooled.npy"), 77))
    if given.t5 is not None:
        t5, words = tiny_models.t5(given.t5 or None), tiny_models.t5_tokenizer(given.t5 or None)
        texts.append((t5, words, ("t5_embeds.npy",), given.t5_length))

    whole = " ".join([describe(vae), *(describe(each[0]) for each in texts), str(given.buckets or given.size)])
    whole += f" {given.dtype} {given.crop} {given.flip}"
    facts = {
        "spec": hashlib.sha256(whole.encode()).hexdigest()[:16],
        "scaling_factor": vae.config.scaling_factor,
        "shift_factor": vae.config.shift_factor or 0.0,
    }
    pipe = sp.stream(shards).rename(image="jpg;jpeg;png;webp", text="txt;caption").select("image", "text")
    pipe = pipe.bucket(given.buckets) if given.buckets else pipe
    pipe = pipe.decode(None if given.buckets else given.size, crop=given.crop, flip=given.flip)
    pipe = pipe.batch(given.batch).map(image, "image")
    for encoder, words, names, length in texts:
        encode = sp.inference(model=encoder, device=device, autocast=DTYPES[given.dtype])(encode_ids)
        pipe = pipe.map(partial(add_texts, tokenizer=words, encode=encode, names=names, length=length))
    return pipe.unbatch().map(partial(finish, facts=facts))


def drawn(folder: Path, count: int = 24) -> Path:
    """A few drawn images as shards, to try it."""
    if not (folder / "shards" / "pack.json").exists():
        make_images(folder / "images", count, 1)
        pack(str(folder / "images"), str(folder / "shards"), max_samples=10, progress=False)
    return folder / "shards"


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="?", help="shards, a folder or a pattern; a few are drawn if there is none")
    parser.add_argument("out", nargs="?", default="quickstart-out/latents", help="the output folder, local or remote")
    parser.add_argument("--size", type=int, default=64, help="of the square that each image is cut to")
    parser.add_argument("--buckets", help="in place of a size: sdxl, sd15 or photo; see Pipeline.bucket")
    parser.add_argument("--crop", choices=("center", "random"), default="center")
    parser.add_argument("--flip", type=float, default=0.0, help="the share of images that are flipped")
    parser.add_argument("--vae", help="path or hub name of an AutoencoderKL; tiny and random without it")
    parser.add_argument("--text-encoder", help="path or hub name of a CLIPTextModel")
    parser.add_argument("--tokenizer", help="path or hub name of its tokenizer")
    parser.add_argument("--no-text", action="store_true", help="latents alone")
    parser.add_argument(
        "--t5", nargs="?", const="", help="a T5 encoder's embeddings too; tiny and random without a path"
    )
    parser.add_argument("--t5-length", type=int, default=64, help="tokens that T5 is given")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; where the models are by default")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of autocast")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--max-samples", type=int, default=1000, help="samples of a shard, and what a kill costs at most"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 on a GPU")
    parser.add_argument("--threads", type=int, default=2, help="that decode images beside the models")
    return parser.parse_args(given)


def main(given: argparse.Namespace) -> sp.Pipeline:
    """Write the shards."""
    shards = given.shards or drawn(Path(given.out).parent / "drawn")
    pipe = pipeline(shards, given)
    summary = pipe.write(
        f"{given.out}/{{:05d}}.tar",
        max_samples=given.max_samples,
        num_workers=given.workers,
        threads=given.threads,
    )
    print(summary)
    return pipe


if __name__ == "__main__":
    main(arguments())
