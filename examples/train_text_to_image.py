"""Train a text-to-image model on streamed shards, as SDXL was: buckets, caption dropout, micro-conditioning.

    python examples/train_text_to_image.py                         # draws images; tiny models from scratch, on the CPU
    torchrun --nproc-per-node 2 examples/train_text_to_image.py    # on two processes
    python examples/train_text_to_image.py --model PATH --shards 's3://bucket/{00000..01999}.tar' --buckets sdxl

``--model`` is a folder (or hub name) in diffusers' layout, of Stable Diffusion 1.5, 2 or XL: its VAE, text encoders,
tokenizers and schedule are used as they are, its UNet is trained on. Kill it at any time and run it again: it goes on
behind the last checkpoint, with the losses that it would have had. Needs: pip install diffusers "transformers>=5".
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
import torch.distributed as dist
from make_images import make_images
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import streampipe as sp
from streampipe.pack import pack

Batch = dict[str, Any]


def pipeline(given: argparse.Namespace, tokenize: Any) -> sp.Pipeline:
    """Shards to batches. A batch is of one bucket, and the same whatever the number of processes and workers is."""
    buckets = sp.Buckets(base=64, step=16) if given.buckets == "tiny" else given.buckets
    return (
        sp.stream(given.shards, seed=given.seed, shuffle=True, epochs=None)
        .bucket(buckets)
        .rename(image="jpg;jpeg;png;webp")
        .decode(crop="random", flip=0.5)  # straight to the bucket's size; writes time_ids
        .caption(dropout=given.caption_dropout)
        .map(tokenize)
        .map(noise_seed)
        .select("image", "tokens", "time_ids", "noise_seed")
        .batch(given.batch_size)
    )


def noise_seed(sample: dict, rng: np.random.Generator) -> dict:
    """A seed for the sample's noise: of (seed, epoch, key) alone, so that a resumed run adds the same noise."""
    return {**sample, "noise_seed": int(rng.integers(1 << 62))}


class Tokenize:
    """A caption to token ids, for one text encoder or for two: int64, encoders x 77."""

    def __init__(self, tokenizers: list[Any]) -> None:
        self.tokenizers = tokenizers

    def __call__(self, sample: dict) -> dict:
        options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
        ids = [tokenizer(sample["caption"], **options).input_ids[0] for tokenizer in self.tokenizers]
        return {**sample, "tokens": torch.stack(ids)}


class Models:
    """VAE and text encoders, which are frozen, the UNet, which is trained, and the noise schedule."""

    def __init__(self, path: str | None, device: torch.device) -> None:
        self.device = device
        self.vae = tiny_models.vae(path, "vae").to(device).requires_grad_(False)
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pixels to one latent, along each edge
        self.unet = tiny_models.unet(path, "unet", micro_conditioning=True).to(device).train()
        self.scheduler = tiny_models.scheduler(path, "scheduler")
        self.micro_conditioning = self.unet.config.addition_embed_type == "text_time"
        tokenizers, encoders = [tiny_models.clip_tokenizer(path, "tokenizer")], [tiny_models.clip(path, "text_encoder")]
        if path and self.micro_conditioning:  # SDXL's second pair
            from transformers import CLIPTextModelWithProjection

            tokenizers.append(tiny_models.clip_tokenizer(path, "tokenizer_2"))
            encoders.append(CLIPTextModelWithProjection.from_pretrained(path, subfolder="text_encoder_2"))
        self.tokenize = Tokenize(tokenizers)
        self.encoders = [encoder.to(device).eval().requires_grad_(False) for encoder in encoders]

    @torch.no_grad()
    def text(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A vector for each token (batch x 77 x width), and one for all (batch x width)."""
        outputs = [encoder(tokens[:, i], output_hidden_states=True) for i, encoder in enumerate(self.encoders)]
        if len(outputs) == 1:
            return outputs[0].last_hidden_state, outputs[0].pooler_output
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)  # as SDXL was trained
        return states, outputs[1].text_embeds

    @torch.no_grad()
    def latents(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """uint8 images to scaled latents; ``draws`` are standard normal, of the latents' shape."""
        posterior = self.vae.encode(images.to(self.device).float() / 127.5 - 1).latent_dist
        return (posterior.mean + posterior.std * draws) * self.vae.config.scaling_factor


def loss_of(batch: Batch, models: Models, unet: torch.nn.Module) -> torch.Tensor:
    """The mean squared error of the predicted noise (or velocity, where the schedule says so)."""
    height, width = (edge // models.factor for edge in batch["image"].shape[-2:])
    shape = (2, models.vae.config.latent_channels, height, width)
    drawn = [_draws(int(seed), shape, models) for seed in batch["noise_seed"]]
    normal = torch.stack([each for each, _ in drawn]).to(models.device)
    steps = torch.tensor([step for _, step in drawn], device=models.device)
    latents = models.latents(batch["image"], normal[:, 0])
    noise = normal[:, 1]
    text, pooled = models.text(batch["tokens"].to(models.device))
    extra = {"text_embeds": pooled, "time_ids": batch["time_ids"].to(models.device)}
    noisy = models.scheduler.add_noise(latents, noise, steps)
    found = unet(noisy, steps, text, added_cond_kwargs=extra if models.micro_conditioning else None).sample
    velocity = models.scheduler.config.prediction_type == "v_prediction"
    wanted = models.scheduler.get_velocity(latents, noise, steps) if velocity else noise
    return functional.mse_loss(found.float(), wanted.float())


def _draws(seed: int, shape: tuple[int, ...], models: Models) -> tuple[torch.Tensor, int]:
    """A sample's normal numbers and its timestep: drawn on the CPU, so they are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.randint(models.scheduler.config.num_train_timesteps, (), generator=generator)
    return torch.randn(shape, generator=generator), int(step)


def save(path: Path, step: int, unet: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: sp.Loader) -> None:
    """Model, optimizer and the loader's state in one file, in its place at once."""
    state = {"step": step, "unet": unet.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "loader": json.dumps(loader.state_dict())}, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def load(path: Path, unet: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: sp.Loader) -> int:
    """Go on where ``save`` was called; the step to do next. On every rank: the state is the same for all."""
    state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    unet.load_state_dict(state["unet"])
    optimizer.load_state_dict(state["optimizer"])
    loader.load_state_dict(json.loads(state["loader"]))
    return int(state["step"])


def draw_shards(out: Path) -> str:
    """Shards of drawn landscapes, made once."""
    make_images(out / "images", 96)
    pack(str(out / "images"), str(out / "shards"), max_samples=24, progress=False)
    return str(out / "shards")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", help="as sp.stream takes them; without it, images are drawn")
    parser.add_argument("--model", help="a folder in diffusers' layout; without it, tiny models with random weights")
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/text-to-image"))
    parser.add_argument("--buckets", default="tiny", help="sdxl, sd15, photo, pixart, or tiny (around 64 x 64)")
    parser.add_argument("--batch-size", type=int, default=8, help="of each process")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--checkpoint-every", type=int, default=10)
    parser.add_argument("--caption-dropout", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="worker processes of each process; 0 decodes in threads")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank = dist.get_rank() if ranks > 1 else 0
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else "cpu"
    given.out.mkdir(parents=True, exist_ok=True)
    if given.shards is None:
        given.shards = draw_shards(given.out) if rank == 0 else str(given.out / "shards")
        if ranks > 1:
            dist.barrier()

    models = Models(given.model, torch.device(device))
    loader = pipeline(given, models.tokenize).loader(num_workers=given.workers, threads=2)
    optimizer = torch.optim.AdamW(models.unet.parameters(), lr=given.lr)
    checkpoint = given.out / "checkpoint.pt"
    step = load(checkpoint, models.unet, optimizer, loader) if checkpoint.exists() else 0
    unet = DistributedDataParallel(models.unet) if ranks > 1 else models.unet
    if rank == 0:
        print(f"{'going on at' if step else 'starting with'} step {step} of {given.steps}\n{loader.explain()}")

    log = given.out / "losses.jsonl" if rank == 0 else Path(os.devnull)
    known = log.read_text().splitlines()[:step] if log.exists() else []  # those behind the checkpoint come again
    with log.open("w") as losses:
        losses.writelines(f"{line}\n" for line in known)
        bar = tqdm(total=given.steps, initial=step, unit=" steps", disable=rank > 0)
        for batch in loader if step < given.steps else ():
            loss = loss_of(batch, models, unet)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            mean = loss.detach().clone()
            if ranks > 1:
                dist.all_reduce(mean)
            shape = list(batch["image"].shape[-2:])
            losses.write(json.dumps({"step": step, "loss": float(mean) / ranks, "size": shape}) + "\n")
            losses.flush()
            bar.update()
            bar.set_postfix(loss=f"{float(mean) / ranks:.3f}")
            if rank == 0 and (step % given.checkpoint_every == 0 or step == given.steps):
                save(checkpoint, step, models.unet, optimizer, loader)
            if step == given.steps:
                break
    if rank == 0:
        print(loader.report())
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
