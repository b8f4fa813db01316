"""Small latent prediction models and inputs for them."""

import torch

from vadcore.data.windows import Batch
from vadcore.models import create_model

VCAE = {"name": "vcae", "conv": 4, "dense": 24, "z": 6, "batch_size": 8, "iterations": 6, "learning_rate": 1e-3}
CAE_VAE = {"name": "cae_vae", "conv": [4, 6, 8], "dense": 16, "vae_dense": 24, "z": 6, "batch_size": 8}
CAE_VAE |= {"cae_iterations": 4, "vae_iterations": 4, "deconv_iterations": 4}
SMALL = {
    "image_size": [16, 24],
    "frames": 8,
    "hidden": 12,
    "batch_size": 4,
    "iterations": 6,
    "warm_up": 3,
    "mixtures": 3,
}


def build(front=VCAE, **more):
    """A small model, always with the same weights."""
    torch.manual_seed(0)
    return create_model("latent_lstm", SMALL | {"front_end": front} | more)


def random_frames(b=2, t=8, h=16, w=24, seed=1) -> Batch:
    """A batch of random frames."""
    shown = torch.rand(b, t, 1, h, w, generator=torch.Generator().manual_seed(seed))
    return Batch(shown, torch.zeros(b, dtype=torch.long), torch.arange(t).expand(b, t))
