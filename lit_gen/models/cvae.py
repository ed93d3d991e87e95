"""Variational autoencoder of images of a class.

Sohn, Lee & Yan 2015, Learning structured output representation using deep conditional generative models
(https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html): encoder, decoder and prior
given a condition, which here is the class. Kingma, Rezende, Mohamed & Welling 2014, Semi-supervised learning with deep
generative models (https://arxiv.org/abs/1406.5298): model M2, p(class) p(z) p(x given z, class).

Departures: every training image has its label, as in the first paper. p(class given x) is not the network of the second
paper but Bayes' rule on the bounds of the classes. The class enters the encoder as a channel of the image, so that any
network takes it; for a fully connected one this is the label joined to its input.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.nn.functional import one_hot

from lit_gen.models.base import Batch, ClassConditional
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.statistics import unit_statistics
from lit_gen.models.vae import VAE
from lit_gen.networks import MLP, BernoulliLikelihood, LikelihoodFactory, NetworkFactory, Shape


class ConditionalVAE(VAE, ClassConditional):
    """VAE given the class of the image (Sohn et al. 2015): draws images of a class, and classifies by its bounds.

    Bounds with a condition are on log p(x given the class); those without are on log p(x), classes summed out.
    A variant overrides what a variant of :class:`VAE` does, or :meth:`conditional_prior`.

    Example:
        >>> model = ConditionalVAE((1, 28, 28), num_classes=10)
        >>> model.sample(3, model.make_condition({"class": 7}, 3)).shape
        torch.Size([3, 1, 28, 28])
        >>> model.classify(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_classes: number of classes; the command line takes it from the data.
        latent_dim: number of latent units.
        encoder: network from the image, with a channel more in which each class has an image of its own, to the mean
            and log-variance of q(z given x, class).
        decoder: network from z and the label, one unit for each class, to the parameters of the likelihood.
        likelihood: p(x given z, class) from the output of the decoder.
        learned_prior: whether p(z given class) has a mean and a variance for each class, learned with the rest, or is
            N(0, I) for all.
        class_prior: p(class): as frequent as among the training images, or uniform.
        kl_weight: weight of the KL term in the loss; 1 gives the bound, above 1 a beta-VAE.
        kl_warmup_steps: training steps over which the weight rises linearly from 0 (against posterior collapse).
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    class_counts: Tensor

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        latent_dim: int = 20,
        encoder: NetworkFactory = MLP,
        decoder: NetworkFactory = MLP,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        learned_prior: bool = False,
        class_prior: Literal["data", "uniform"] = "data",
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if num_classes < 2:
            raise ValueError(
                f"a ConditionalVAE needs labels of at least 2 classes, the data has {num_classes}; use labelled data"
                " (class sub-folders for ImageFolder), or a VAE"
            )
        if class_prior not in ("data", "uniform"):
            raise ValueError(f"class_prior must be data or uniform, got {class_prior!r}")
        self.num_classes = num_classes
        super().__init__(
            image_shape,
            latent_dim,
            lambda image, code: encoder((image[0] + 1, *image[1:]), code),
            lambda latent, parameters: decoder((latent[0] + num_classes,), parameters),
            likelihood,
            kl_weight,
            kl_warmup_steps,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
        )
        self.class_prior = class_prior
        # Constant maps to begin with; training makes of them what the encoder can use.
        maps = torch.randn(num_classes, *(1 for _ in self.image_shape)).repeat(1, 1, *self.image_shape[1:])
        self.class_maps = nn.Parameter(maps)
        self.prior_parameters = nn.Parameter(torch.zeros(num_classes, 2 * latent_dim)) if learned_prior else None
        self.register_buffer("class_counts", torch.zeros(num_classes))

    # ---- the distributions

    @property
    def class_log_prior(self) -> Tensor:
        """log p(class), ``(num_classes,)``: uniform until the training images have been counted."""
        counts = self.class_counts if self.class_counts.any() else torch.ones_like(self.class_counts)
        return torch.log(counts / counts.sum())

    @property
    def prior(self) -> Distribution:
        """p(z), classes summed out."""
        if self.prior_parameters is None:
            return super().prior
        classes = Categorical(logits=self.class_log_prior, validate_args=False)
        return MixtureSameFamily(classes, _gaussian(self.prior_parameters), validate_args=False)

    def conditional_prior(self, condition: Any = None) -> Distribution:
        """p(z given class)."""
        if self.prior_parameters is None or condition is None:
            return self.prior
        return _gaussian(self.prior_parameters[condition])

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        """q(z given x, class)."""
        return super().encode(torch.cat([images, self.class_maps[self._known(condition)].to(images)], 1))

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        """p(x given z, class)."""
        label = one_hot(self._known(condition), self.num_classes).to(z)
        return super().decode(torch.cat([z, label], 1))

    def _known(self, condition: Any) -> Tensor:
        if condition is None:
            raise ValueError(
                f"{type(self).__name__} needs the class of each image, got none; give class numbers of shape (B,), or"
                " what `classify` makes of the images"
            )
        return condition

    # ---- the class

    @torch.no_grad()
    def class_bounds(self, images: Tensor, num_samples: int = 1) -> Tensor:
        """log p(class) plus the k-sample bound on log p(x given class): ``(B, C, H, W) -> (B, num_classes)`` nats."""
        bounds = [
            super(ConditionalVAE, self).lower_bound(images, num_samples, images.new_full((len(images),), number).long())
            for number in range(self.num_classes)
        ]
        return torch.stack(bounds, 1) + self.class_log_prior

    def classify(self, images: Tensor, num_samples: int = 10) -> Tensor:
        """The most probable class of each image by :meth:`class_bounds`: ``(B, C, H, W) -> (B,)``."""
        return self.class_bounds(images, num_samples).argmax(1)

    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        """k-sample bound on log p(x given class), or without a condition on log p(x): ``(B,)`` nats."""
        if condition is None:
            return self.class_bounds(images, num_samples).logsumexp(1)
        return super().lower_bound(images, num_samples, condition)

    # ---- training

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Count the classes of the training images, once in the life of the model."""
        super().on_train_start()
        if self.class_prior == "data" and not self.class_counts.any():
            frequencies, _, total = unit_statistics(self, lambda _, classes: one_hot(classes, self.num_classes))
            self.class_counts.copy_((frequencies * total).round())

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        images, condition = self.unpack(batch)
        accuracy = (self.classify(images) == condition).float()
        self.log_evaluation("test", {"accuracy": accuracy}, len(images))

    # ---- conditions

    def sample_condition(self, num_samples: int) -> Tensor:
        """Classes from p(class)."""
        return torch.multinomial(self.class_log_prior.exp(), num_samples, replacement=True)


def _gaussian(parameters: Tensor) -> Distribution:
    """A diagonal Gaussian from its mean and log-variance."""
    mean, log_variance = parameters.chunk(2, dim=-1)
    return Independent(Normal(mean, torch.exp(0.5 * log_variance), validate_args=False), 1, validate_args=False)
