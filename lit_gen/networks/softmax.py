"""Softmax units: pixels of a few grey levels, and the label beside an image."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lit_gen.networks.network import Shape
from lit_gen.networks.visible import LinearVisible, Natural, VisibleLayer


class CategoricalVisible(LinearVisible):
    """Pixels of K grey levels, each a group of K units of which one is on (Hinton 2010, section 13.1).

    The probability is that of the image rounded to the nearest of the levels 0, 1/(K-1), ..., 1: train on images that
    have no other, or read it as the model's word on the rounded image.

    Args:
        image_shape: ``(C, H, W)``; V is K times their product.
        levels: K, at least 2.
    """

    def __init__(self, image_shape: Shape, levels: int = 8) -> None:
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        super().__init__(image_shape)
        self.levels = levels
        self.num_units *= levels
        self.bias = nn.Parameter(torch.zeros(self.num_units))

    def _groups(self, units: Tensor) -> Tensor:
        """``(..., V) -> (..., pixels, K)``."""
        return units.unflatten(-1, (-1, self.levels))

    def _grey(self, like: Tensor) -> Tensor:
        """The levels, ``(K,)`` in [0, 1]."""
        return torch.linspace(0, 1, self.levels, dtype=like.dtype, device=like.device)

    def encode(self, pixels: Tensor) -> Tensor:
        nearest = (pixels * (self.levels - 1)).round().clamp(0, self.levels - 1).long()
        return one_hot(nearest, self.levels).flatten(1).to(pixels.dtype)

    def decode(self, visible: Tensor) -> Tensor:
        return self._groups(visible) @ self._grey(visible)

    def filters(self, weight: Tensor) -> Tensor:
        """The slope of each pixel's weights over its levels: a constant added to all of them changes nothing."""
        grey = self._grey(weight) - 0.5
        return (self._groups(weight.T) @ grey) / grey.square().sum()

    @torch.no_grad()
    def initialize(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Logarithms of the frequencies, with one image of every level added to the count."""
        self.bias.copy_(torch.log((mean * count + 1) / (count + self.levels)))

    def base(self, mean: Tensor, variance: Tensor) -> Natural:
        return (torch.log(mean + 0.05),)

    def log_normalizer(self, natural: Natural) -> Tensor:
        return self._groups(natural[0]).logsumexp(-1).sum(-1)

    def mean(self, natural: Natural) -> Tensor:
        return torch.softmax(self._groups(natural[0]), -1).flatten(-2)

    def sample(self, natural: Natural) -> Tensor:
        # By comparison with one uniform draw for each pixel; rounding may leave the last sum below it.
        cumulative = torch.softmax(self._groups(natural[0]), -1).cumsum(-1)
        chosen = (cumulative[..., :-1] <= torch.rand_like(cumulative[..., :1])).sum(-1)
        return one_hot(chosen, self.levels).flatten(-2).to(natural[0].dtype)


class RepeatedLabel(LinearVisible):
    """A label in several copies that agree, with common weights: units ``(B, K)`` count the copies of each class.

    E(y) = -copies b y for one-hot y, and the hidden units see ``copies`` times y: the label is as loud beside many
    other units as its copies are many. Copies that were drawn one by one would be another model, with K^copies states:
    its hidden units spend themselves on making the copies agree, and its chains hardly ever change class.

    Args:
        num_classes: K.
        copies: number of copies, which is the count of the class and of no other.
    """

    def __init__(self, num_classes: int, copies: int) -> None:
        super().__init__((num_classes,))
        if copies < 1:
            raise ValueError(f"copies of the label must be at least 1, got {copies}")
        self.copies = copies
        self.bias = nn.Parameter(torch.zeros(num_classes))

    @torch.no_grad()
    def initialize(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Logarithms of the frequencies, with one image of every class added to the count, a part for each copy."""
        frequencies = (mean / self.copies * count + 1) / (count + self.num_units)
        self.bias.copy_(torch.log(frequencies) / self.copies)

    def base(self, mean: Tensor, variance: Tensor) -> Natural:
        return (torch.log(mean / self.copies + 0.05) / self.copies,)

    def log_normalizer(self, natural: Natural) -> Tensor:
        return (self.copies * natural[0]).logsumexp(-1)

    def mean(self, natural: Natural) -> Tensor:
        return self.copies * torch.softmax(self.copies * natural[0], -1)

    def sample(self, natural: Natural) -> Tensor:
        drawn = torch.multinomial(torch.softmax(self.copies * natural[0], -1), 1)[..., 0]
        return self.copies * one_hot(drawn, self.num_units).to(natural[0].dtype)


class LabelledVisible(VisibleLayer):
    """An image and, after it, its label as a softmax group (Larochelle & Bengio 2008; Hinton 2010, section 16).

    Args:
        image: the layer of the pixels.
        num_classes: number of labels.
        copies: of the label; see :class:`RepeatedLabel`.
    """

    def __init__(self, image: VisibleLayer, num_classes: int, copies: int = 1) -> None:
        super().__init__((image.num_units + num_classes,))
        self.image = image
        self.label = CategoricalVisible((1,), num_classes) if copies == 1 else RepeatedLabel(num_classes, copies)
        self.is_density = image.is_density
        self.needs_binary = image.needs_binary

    def join(self, image: Tensor, label: Tensor) -> Tensor:
        """Units of an image ``(B, V)`` and of its label ``(B, num_classes)`` as one state."""
        return torch.cat([image, label], -1)

    def split(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Units of the image and of the label, along the last dimension."""
        return units[..., : self.image.num_units], units[..., self.image.num_units :]

    def decode(self, visible: Tensor) -> Tensor:
        return self.image.decode(self.split(visible)[0])

    def filters(self, weight: Tensor) -> Tensor:
        return self.image.filters(weight[: self.image.num_units])

    def initialize(self, mean: Tensor, variance: Tensor, count: int) -> None:
        for layer, means, variances in zip(self.children(), self.split(mean), self.split(variance), strict=True):
            assert isinstance(layer, VisibleLayer)
            layer.initialize(means, variances, count)

    def energy(self, visible: Tensor) -> Tensor:
        image, label = self.split(visible)
        return self.image.energy(image) + self.label.energy(label)

    def scale(self, visible: Tensor) -> Tensor:
        image, label = self.split(visible)
        return self.join(self.image.scale(image), label)

    def absorb(self, field: Tensor) -> None:
        image, label = self.split(field)
        self.image.absorb(image)
        self.label.absorb(label)

    def natural(self, field: Tensor) -> Natural:
        image, label = self.split(field)
        return (*self.image.natural(image), *self.label.natural(label))

    def base(self, mean: Tensor, variance: Tensor) -> Natural:
        means, variances = self.split(mean), self.split(variance)
        return (*self.image.base(means[0], variances[0]), *self.label.base(means[1], variances[1]))

    def statistics(self, visible: Tensor) -> Natural:
        image, label = self.split(visible)
        return (*self.image.statistics(image), label)

    def log_normalizer(self, natural: Natural) -> Tensor:
        return self.image.log_normalizer(natural[:-1]) + self.label.log_normalizer(natural[-1:])

    def mean(self, natural: Natural) -> Tensor:
        return self.join(self.image.mean(natural[:-1]), self.label.mean(natural[-1:]))

    def sample(self, natural: Natural) -> Tensor:
        return self.join(self.image.sample(natural[:-1]), self.label.sample(natural[-1:]))

    def log_partition(self, field: Tensor) -> Tensor:
        image, label = self.split(field)
        return self.image.log_partition(image) + self.label.log_partition(label)
