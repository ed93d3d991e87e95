"""A perceptual reconstruction term for models of a likelihood: the VAE of DeePSiM by configuration alone.

Dosovitskiy & Brox 2016, Generating images with perceptual similarity metrics based on deep networks
(https://arxiv.org/abs/1602.02644), section 3.2.
"""

from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from lit_gen.models.image_distances import FeatureDistance, ImageDistanceFactory
from lit_gen.networks import GaussianLikelihood, Likelihood, LikelihoodFactory, Shape, TrainingImages, build


class PerceptualLikelihood(Likelihood):
    """A likelihood of pixels, and beside it a distance of mean images that training minimises too.

    Nothing normalises exp(-distance) over images, so that the distance is no part of p(x given z): densities, samples
    and the bound (``elbo``, ``bits_per_dim``, ``log_likelihood_iw...``) are those of the likelihood of pixels alone.
    They hold, but training does not maximise them; what it minimises is logged as ``loss``.

    Args:
        image_shape: ``(C, H, W)``.
        pixels: p(x given z).
        distance: of the mean image from the image.
        weight: nats that a distance of 1 costs; 1 is about that of the mean of all images.
    """

    adds_loss = True

    def __init__(
        self,
        image_shape: Shape,
        pixels: LikelihoodFactory = GaussianLikelihood,
        distance: ImageDistanceFactory = FeatureDistance,
        weight: float = 100.0,
    ) -> None:
        super().__init__(image_shape)
        if weight <= 0:
            raise ValueError(f"weight must be positive, got {weight}; without the distance, take the likelihood itself")
        self.pixels = build(pixels, self.image_shape)
        if self.pixels.adds_loss:
            raise ValueError("a PerceptualLikelihood of another one would add its distance twice; take a plain one")
        self.distance = build(distance, self.image_shape)
        self.weight = weight

    @property
    def is_density(self) -> bool:  # type: ignore[override]
        return self.pixels.is_density

    @property
    def needs_binary(self) -> bool:  # type: ignore[override]
        return self.pixels.needs_binary

    @property
    def parameter_shape(self) -> Shape:
        return self.pixels.parameter_shape

    def distribution(self, parameters: Tensor) -> Distribution:
        return self.pixels.distribution(parameters)

    def added_loss(self, decoded: Distribution, images: Tensor) -> Tensor:
        return self.weight * self.distance(decoded.mean, images)

    def start(self, training_images: TrainingImages) -> None:
        self.distance.start(training_images)

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """With the parts that were made in place of their factories, which may be functions."""
        specification = super().specification(skip)
        specification["init_args"] |= {"pixels": self.pixels, "distance": self.distance}
        return specification
