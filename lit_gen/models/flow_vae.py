"""Variational autoencoder whose posterior is carried along a normalizing flow.

Rezende & Mohamed 2015, Variational inference with normalizing flows (https://arxiv.org/abs/1505.05770): planar and
radial flows. Kingma et al. 2016, Improving variational inference with inverse autoregressive flow
(https://arxiv.org/abs/1606.04934): another flow handed in.

Departures from the first paper: Adam instead of RMSprop, and networks are those of :class:`VAE` unless others are
injected (the paper has one layer of 400 maxout units).
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.vae import VAE
from lit_gen.networks import (
    MLP,
    BernoulliLikelihood,
    FlowFactory,
    LikelihoodFactory,
    NetworkFactory,
    PlanarFlow,
    PriorFactory,
    Shape,
    StandardNormal,
    build,
)
from lit_gen.objectives import LikelihoodTerms


class FlowVAE(VAE):
    """VAE with a normalizing flow at the end of its encoder (Rezende & Mohamed 2015).

    A variant hands in another :class:`~lit_gen.networks.Flow`, or overrides what a variant of :class:`VAE` does.

    Example:
        >>> from lit_gen.networks import RadialFlow
        >>> model = FlowVAE((1, 28, 28), latent_dim=40, flow=lambda dim: RadialFlow(dim, length=20))
        >>> model.encode(torch.zeros(3, 1, 28, 28)).sample().shape
        torch.Size([3, 40])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units.
        flow: maps of latents, built for their number.
        encoder: network from the image to mean and log-variance of the first latents and the parameters of the flow.
        decoder: network from z to the parameters of the likelihood.
        likelihood: p(x given z) from the output of the decoder.
        annealing_steps: training steps over which the weight of log p(x, z) in the loss rises from 0.01 to 1, while the
            entropy of q keeps its own (equation 20); 0 gives the bound from the start.
        latent_prior: p(z), as in :class:`VAE`.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 40,
        flow: FlowFactory = PlanarFlow,
        encoder: NetworkFactory = MLP,
        decoder: NetworkFactory = MLP,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        annealing_steps: int = 10_000,
        latent_prior: PriorFactory = StandardNormal,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            image_shape,
            latent_dim,
            encoder,
            decoder,
            likelihood,
            latent_prior=latent_prior,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
        )
        if annealing_steps < 0:
            raise ValueError(f"annealing_steps must not be negative, got {annealing_steps}")
        self.annealing_steps = annealing_steps
        self.flow = build(flow, latent_dim)
        self.encoder = build(encoder, self.image_shape, (self.flow.num_outputs,))

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        """q(z given x): a diagonal normal distribution carried along the flow."""
        return self.flow.posterior(self.encoder(images))

    def joint_weight_now(self) -> float:
        """Weight of log p(x, z) at this training step: min(1, 0.01 + t / annealing_steps)."""
        if not self.training or self.annealing_steps == 0 or self._trainer is None:
            return 1.0
        return min(1.0, 0.01 + self.trainer.global_step / self.annealing_steps)

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        posterior, prior = self.encode(images, condition), self.conditional_prior(condition)
        z = posterior.rsample()
        reconstruction = self.decode(z, condition).log_prob(images)
        # Equation 15: ln q(z_K) is ln q(z_0) less the log-determinants. Nothing is known in closed form.
        entropy, energy = -posterior.log_prob(z), -prior.log_prob(z)
        kl = energy - entropy
        loss = self.joint_weight_now() * (energy - reconstruction) - entropy
        return LikelihoodTerms(loss, reconstruction - kl, reconstruction, kl)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The mean image at the point to which the flow carries the first mean, ``(B, C, H, W)`` in [0, 1]."""
        posterior = self.encode(images, condition)
        assert isinstance(posterior, TransformedDistribution)
        z = posterior.base_dist.mean
        for transform in posterior.transforms:
            z = transform(z)
        return self.decode_images(z, condition).float()
