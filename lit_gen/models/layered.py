"""What variational autoencoders of several stochastic layers share: how they generate."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from lit_gen.distributions import Joint
from lit_gen.models.vae import VAE
from lit_gen.networks import Network, Recorded, Shape, full_precision


class Stack(Recorded, nn.ModuleList):
    """Networks made by one factory, the lowest first; recorded as one of them."""

    def specification(self, skip: int = 0) -> dict[str, Any]:
        first: Network = self[0]  # type: ignore[assignment]
        return first.specification(first.sizes)


class LayeredVAE(VAE):
    """p(x, h) = p(h_L) p(h_L-1 given h_L) .. p(x given h_1), each layer a diagonal Gaussian given the one above.

    A latent is one of the top layer. A subclass gives the networks, and q; it may override :meth:`gaussian`.
    """

    latent_dims: tuple[int, ...]
    """Number of units of each stochastic layer, from the image upwards."""
    upper_encoder: Stack | None
    """The way up beyond the first layer; None for a single layer."""
    upper_decoder: Stack | None
    """From h_l+1 to the parameters of p(h_l given h_l+1), for every l; None for a single layer."""

    @property
    def latent_shape(self) -> Shape:
        return (self.latent_dims[-1],)

    def gaussian(self, network: nn.Module, given: Tensor) -> Distribution:
        """A diagonal Gaussian from its mean and log standard deviation (not the log-variance of :class:`VAE`)."""
        mean, log_std = full_precision(network(given)).chunk(2, dim=1)
        return Independent(Normal(mean, torch.exp(log_std), validate_args=False), 1, validate_args=False)

    def generative(self, layer: int, above: Tensor, condition: Any = None) -> Distribution:
        """p(h_layer given the layer above); layer 0 is the image."""
        if layer == 0:
            return super().decode(above, condition)
        return self.gaussian(part_of(self.upper_decoder, layer - 1), above)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        """p(x given h_1), at the means of the layers between."""
        for layer in reversed(range(1, len(self.latent_dims))):
            z = self.generative(layer, z, condition).mean
        return self.generative(0, z, condition)

    def joint_prior(self, condition: Any = None) -> Distribution:
        """Of h_L, and of the standard normal noise that the layers below are drawn with, in a row."""
        if len(self.latent_dims) == 1:
            return self.conditional_prior(condition)
        zeros = next(self.parameters()).new_zeros(sum(self.latent_dims[:-1]))
        noise = Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)
        return Joint([self.conditional_prior(condition), noise], validate_args=False)

    def decode_joint(self, u: Tensor, condition: Any = None) -> Distribution:
        """p(x given h_1), every h_l being its mean given the layer above, plus its noise times its deviation."""
        h, *noises = u.split(self.latent_dims[::-1], 1)
        for layer, noise in zip(reversed(range(1, len(self.latent_dims))), noises, strict=True):
            p = self.generative(layer, h, condition)
            h = p.mean + p.stddev * noise
        return self.generative(0, h, condition)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        h = self.sample_latents(num_samples, condition)
        for layer in reversed(range(1, len(self.latent_dims))):
            h = self.generative(layer, h, condition).sample()
        return self.generative(0, h, condition).mean

    def compiled_parts(self) -> list[nn.Module]:
        stacks = [stack for stack in (self.upper_encoder, self.upper_decoder) if stack is not None]
        return [*super().compiled_parts(), *(part for stack in stacks for part in stack)]


def part_of(stack: Stack | None, number: int) -> nn.Module:
    assert stack is not None, "a model of one stochastic layer has none above"
    return stack[number]
