"""A VAE conditioned on captions: what the contract asks of such a model, in the fewest lines."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_gen.captions import Caption
from lit_gen.models import VAE
from lit_gen.models.base import CaptionConditional, Frame, HasTrajectory
from lit_gen.networks import MLP, Shape


class CaptionVAE(VAE, CaptionConditional, HasTrajectory):
    """p(x given z, caption): the mean of the word vectors shifts z. A sample comes to be word by word.

    Args:
        image_shape: ``(C, H, W)``.
        vocabulary: words in the order of their numbers.
        captions: to draw from.
        latent_dim: number of latent units.
    """

    def __init__(
        self, image_shape: Shape, vocabulary: list[str], captions: Sequence[str] = (), latent_dim: int = 4
    ) -> None:
        super().__init__(image_shape, latent_dim, encoder=_narrow, decoder=_narrow)
        self.keep_vocabulary(vocabulary, captions)
        self.embedding = nn.Embedding(len(self.vocabulary), latent_dim)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        return super().decode(z + self.mean_word(condition, condition.mask.float()))

    def mean_word(self, condition: Caption, weights: Tensor) -> Tensor:
        words = self.embedding(condition.tokens)
        return (weights[:, :, None] * words).sum(1) / condition.lengths[:, None]

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        condition = self.sample_condition(num_samples) if condition is None else condition
        z = self.sample_latents(num_samples, condition)
        first = torch.arange(condition.tokens.shape[1], device=z.device)
        for step in first:
            said = condition.mask & (first <= step)
            images = super().decode(z + self.mean_word(condition, said.float())).mean
            boxes = torch.tensor([[[0.0, 0.0, 4.0, float(step)]]]).expand(num_samples, -1, -1)
            yield Frame(images, boxes, said / said.sum(1, keepdim=True))


def _narrow(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[16])
