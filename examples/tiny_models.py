"""The models of a latent diffusion pipeline: pretrained ones by their path, or tiny ones with random weights.

Every function takes the path (or hub name) of a pretrained model, and gives that; without one, a configuration so small
that it runs on a CPU in milliseconds, with the same weights in every process. Classes, inputs and outputs are those of
the real models, so what works with them works with Stable Diffusion's. Needs: pip install diffusers "transformers>=5".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WIDTH = 32
"""Of the tiny text encoders' outputs, and of the tiny UNet's cross attention."""
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def vae(path: str | None = None, subfolder: str | None = None) -> AutoencoderKL:
    """Images (batch x 3 x height x width, in [-1, 1]) to latents (batch x 4 x height / 8 x width / 8) and back."""
    if path:
        return AutoencoderKL.from_pretrained(path, **_inside(subfolder))
    return _seeded(
        lambda: AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
        )
    )


def clip(path: str | None = None, subfolder: str | None = None) -> CLIPTextModel:
    """Token ids (batch x 77) to a vector for each token (``last_hidden_state``) and one for all (``pooler_output``)."""
    if path:
        return CLIPTextModel.from_pretrained(path, **_inside(subfolder))
    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=WIDTH,
        max_position_embeddings=77,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return _seeded(lambda: CLIPTextModel(config))


def clip_tokenizer(path: str | None = None, subfolder: str | None = None) -> Any:
    """Captions to ids. The tiny one knows the letters that CLIP's begins with, and no longer pieces."""
    if path:
        return AutoTokenizer.from_pretrained(path, **_inside(subfolder))
    letters = _letters()
    pieces = [*letters, *(letter + "</w>" for letter in letters), BOS, EOS]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def t5(path: str | None = None, subfolder: str | None = None) -> T5EncoderModel:
    """Token ids (batch x length) to one vector for each token (``last_hidden_state``)."""
    if path:
        return T5EncoderModel.from_pretrained(path, **_inside(subfolder))
    config = T5Config(vocab_size=128, d_model=WIDTH, d_kv=8, d_ff=2 * WIDTH, num_layers=2, num_heads=4)
    return _seeded(lambda: T5EncoderModel(config))


def t5_tokenizer(path: str | None = None, subfolder: str | None = None) -> Any:
    """Captions to ids. The tiny one knows printable ASCII, letter by letter."""
    if path:
        return AutoTokenizer.from_pretrained(path, **_inside(subfolder))
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *map(chr, range(33, 127))]
    return T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=64)


def unet(path: str | None = None, subfolder: str | None = None, *, micro_conditioning: bool = False) -> Any:
    """Noisy latents, timesteps and text vectors to the noise; with SDXL's ``time_ids`` and pooled text if asked for."""
    if path:
        return UNet2DConditionModel.from_pretrained(path, **_inside(subfolder))
    extra = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    }
    return _seeded(
        lambda: UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=8,
            norm_num_groups=8,
            **(extra if micro_conditioning else {}),
        )
    )


def scheduler(path: str | None = None, subfolder: str | None = None) -> DDPMScheduler:
    """Stable Diffusion's noise schedule."""
    if path:
        return DDPMScheduler.from_pretrained(path, **_inside(subfolder))
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def _inside(subfolder: str | None) -> dict[str, str]:
    return {"subfolder": subfolder} if subfolder else {}


def _seeded(make: Callable[[], Any]) -> Any:
    """A model with the same random weights in every process; the caller's generators are not moved."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def _letters() -> list[str]:
    """One printable letter for each byte, as in GPT-2's and CLIP's vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + i) for i in range(len(others)))]
