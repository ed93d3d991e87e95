"""The generator's goal of matching what the discriminator sees, to be injected into a model.

Salimans, Goodfellow, Zaremba, Cheung, Radford & Chen 2016, Improved techniques for training GANs
(https://arxiv.org/abs/1606.03498), section 3.1.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from lit_gen.networks import Recorded


class FeatureMatching(Recorded):
    """The generator makes images with the mean features of real ones, and does not ask whether they look real.

    The features are those of an inner layer of the discriminator, whose own loss is that of the model. Means are over
    the images that are computed at once, ``micro_batches`` included.

    Args:
        layer: of the discriminator, by its name in ``named_modules``.
        distance: of the means: ``squared``, summed over features, as in the paper, or ``absolute``, averaged over them,
            as in the authors' program.
        weight: of the distance.
    """

    def __init__(self, layer: str, distance: Literal["squared", "absolute"] = "squared", weight: float = 1.0) -> None:
        if distance not in ("squared", "absolute"):
            raise ValueError(f"distance must be squared or absolute, got {distance!r}")
        if weight <= 0:
            raise ValueError(f"weight must be positive, got {weight}; leave the feature matching out to do without")
        self.layer = layer
        self.distance = distance
        self.weight = weight

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """Distance of the mean features of images and generated ones.

        Args:
            real: ``(B, ...)``.
            fake: ``(B, ...)``.

        Returns:
            ``(B,)``, the same for all.
        """
        difference = real.mean(0) - fake.mean(0)
        distance = difference.square().sum() if self.distance == "squared" else difference.abs().mean()
        return (self.weight * distance).expand(len(fake))


FeatureMatchingFactory = Callable[[], FeatureMatching]
