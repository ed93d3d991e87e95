"""A VAE conditioned on its class: what the contract asks of a conditional model, in the fewest lines."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_gen.models import VAE
from lit_gen.models.base import Conditional
from lit_gen.networks import MLP, Shape


class ClassVAE(VAE, Conditional):
    """p(x given z, class): the class shifts z.

    Args:
        image_shape: ``(C, H, W)``.
        num_classes: number of classes.
        latent_dim: number of latent units.
    """

    condition_fields = {"class": int}

    def __init__(self, image_shape: Shape, num_classes: int, latent_dim: int = 4) -> None:
        super().__init__(image_shape, latent_dim, encoder=_narrow, decoder=_narrow)
        self.embedding = nn.Embedding(num_classes, latent_dim)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        return super().decode(z + self.embedding(condition))

    def make_condition(self, fields: dict[str, Any], num_samples: int) -> Tensor:
        if not 0 <= fields["class"] < self.embedding.num_embeddings:
            raise ValueError(f"class must lie in 0..{self.embedding.num_embeddings - 1}, got {fields['class']}")
        return torch.full((num_samples,), fields["class"])

    def sample_condition(self, num_samples: int) -> Tensor:
        return torch.arange(num_samples) % self.embedding.num_embeddings

    def target_condition(self, target: Any) -> Tensor:
        return target


def _narrow(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[16])
