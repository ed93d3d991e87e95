"""Visible layers: how the pixels of a Boltzmann machine are distributed given its hidden units.

Each is an exponential family, p(v given field) = exp(eta(field) T(v) - A(eta)). Annealing from a base distribution of
the same family then interpolates eta linearly, whatever the family.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lit_gen.distributions import sample_bernoulli
from lit_gen.networks.network import Recorded, Shape

Natural = tuple[Tensor, ...]
"""Natural parameters, each ``(V,)`` or ``(B, V)``."""


class VisibleLayer(Recorded, nn.Module):
    """Energy of visible units ``v``, ``(B, V)``, and their distribution in the field of the hidden units.

    The machine's energy is ``energy(v) - scale(v) W h - c h``; ``field = W h`` is what the hidden units exert.
    Units are pixels unless a layer encodes these otherwise.

    Args:
        image_shape: ``(C, H, W)``; V is their product.
    """

    sizes = 1
    is_density = False
    """Whether exp(-energy) is a density of continuous pixels, not a probability of discrete ones."""
    needs_binary = False
    """Whether pixels must be 0 or 1 for the free energy to be that of an image."""

    def __init__(self, image_shape: Shape) -> None:
        super().__init__()
        self.num_units = math.prod(image_shape)

    def encode(self, pixels: Tensor) -> Tensor:
        """The units of flat images: ``(B, pixels)`` in [0, 1] ``-> (B, V)``."""
        return pixels

    def decode(self, visible: Tensor) -> Tensor:
        """The pixels of units or of their means: ``(B, V) -> (B, pixels)``."""
        return visible

    def filters(self, weight: Tensor) -> Tensor:
        """What each hidden unit looks for: ``(V, H) -> (H, pixels)``."""
        return weight.T

    def initialize(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Make a machine without weights fit the data: parameters from the mean and variance ``(V,)`` of the units.

        Args:
            mean: of each unit over all images.
            variance: of each unit.
            count: number of images.
        """
        raise NotImplementedError(f"{type(self).__name__} must define initialize")

    def energy(self, visible: Tensor) -> Tensor:
        """The part of the energy without hidden units, ``(B, V) -> (B,)``, nats."""
        raise NotImplementedError(f"{type(self).__name__} must define energy")

    def scale(self, visible: Tensor) -> Tensor:
        """What the weights multiply: ``(B, V) -> (B, V)``."""
        raise NotImplementedError(f"{type(self).__name__} must define scale")

    def absorb(self, field: Tensor) -> None:
        """Change the biases as a constant field ``(V,)`` would: energy(v) less scale(v) field, up to a constant."""
        raise NotImplementedError(f"{type(self).__name__} must define absorb")

    def natural(self, field: Tensor) -> Natural:
        """eta in a field ``(B, V)``."""
        raise NotImplementedError(f"{type(self).__name__} must define natural")

    def base(self, mean: Tensor, variance: Tensor) -> Natural:
        """eta of independent pixels with about these means and variances, broad enough to start annealing from."""
        raise NotImplementedError(f"{type(self).__name__} must define base")

    def statistics(self, visible: Tensor) -> Natural:
        """T(v), each ``(B, V)``."""
        raise NotImplementedError(f"{type(self).__name__} must define statistics")

    def log_normalizer(self, natural: Natural) -> Tensor:
        """A(eta), summed over pixels: ``(V,) -> ()`` or ``(B, V) -> (B,)``, nats."""
        raise NotImplementedError(f"{type(self).__name__} must define log_normalizer")

    def mean(self, natural: Natural) -> Tensor:
        """E[v] under eta."""
        raise NotImplementedError(f"{type(self).__name__} must define mean")

    def sample(self, natural: Natural) -> Tensor:
        """A draw of v under eta."""
        raise NotImplementedError(f"{type(self).__name__} must define sample")

    def log_partition(self, field: Tensor) -> Tensor:
        """log of the sum (or integral) of exp(-energy(v) + scale(v) field) over all v: ``(B, V) -> (B,)``, nats."""
        raise NotImplementedError(f"{type(self).__name__} must define log_partition")


class LinearVisible(VisibleLayer):
    """Discrete units with energy -b v, which are their own sufficient statistics."""

    bias: nn.Parameter

    def energy(self, visible: Tensor) -> Tensor:
        with torch.autocast(visible.device.type, enabled=False):  # under bf16 the product would be nats off
            return -(visible @ self.bias)

    def scale(self, visible: Tensor) -> Tensor:
        return visible

    @torch.no_grad()
    def absorb(self, field: Tensor) -> None:
        self.bias.add_(field)

    def natural(self, field: Tensor) -> Natural:
        return (self.bias + field,)

    def statistics(self, visible: Tensor) -> Natural:
        return (visible,)

    def log_partition(self, field: Tensor) -> Tensor:
        return self.log_normalizer(self.natural(field))


class BernoulliVisible(LinearVisible):
    """Binary pixels with energy -b v (Smolensky 1986)."""

    needs_binary = True

    def __init__(self, image_shape: Shape) -> None:
        super().__init__(image_shape)
        self.bias = nn.Parameter(torch.zeros(self.num_units))

    @torch.no_grad()
    def initialize(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Log-odds of the data (Hinton 2010, section 8.1), with one image on and one off added to the count."""
        self.bias.copy_(torch.logit((mean * count + 1) / (count + 2)))

    def base(self, mean: Tensor, variance: Tensor) -> Natural:
        # Five images on and off in a hundred, as in the code of Salakhutdinov & Murray (2008) (there: on only).
        return (torch.logit((mean + 0.05) / 1.1),)

    def log_normalizer(self, natural: Natural) -> Tensor:
        return softplus(natural[0]).sum(-1)

    def mean(self, natural: Natural) -> Tensor:
        return torch.sigmoid(natural[0])

    def sample(self, natural: Natural) -> Tensor:
        return sample_bernoulli(torch.sigmoid(natural[0]))


class GaussianVisible(VisibleLayer):
    """Continuous pixels with energy (v - a)^2 / (2 sigma^2), the weights multiplying (v - m) / sigma.

    p(v given h) = N(a + sigma W h, sigma^2). Pixels keep their range [0, 1], and yet training is that on normalised
    data: with m the mean of the data and s its standard deviation, a = m + s * ``shift`` and
    sigma = min_std + s * exp(``log_std``), so that gradients are of one size for all pixels. Use a learning rate of
    0.01 or less.

    Source: Welling, Rosen-Zvi & Hinton 2004, Exponential family harmoniums; Hinton 2010, section 13.2.

    Args:
        image_shape: ``(C, H, W)``.
        learn_std: learn sigma of each pixel; otherwise it stays at that of the data.
        min_std: floor of sigma, in pixel units (images in [0, 1]).
    """

    is_density = True
    offset: Tensor
    unit: Tensor

    def __init__(self, image_shape: Shape, learn_std: bool = True, min_std: float = 0.05) -> None:
        super().__init__(image_shape)
        if min_std <= 0:
            raise ValueError(f"min_std must be positive, got {min_std}")
        self.min_std = min_std
        self.shift = nn.Parameter(torch.zeros(self.num_units))
        self.log_std = nn.Parameter(torch.zeros(self.num_units), requires_grad=learn_std)
        self.register_buffer("offset", torch.zeros(self.num_units))
        self.register_buffer("unit", torch.ones(self.num_units))

    @property
    def loc(self) -> Tensor:
        """a, ``(V,)``."""
        return self.offset + self.unit * self.shift

    @property
    def std(self) -> Tensor:
        """sigma, ``(V,)``."""
        return self.min_std + self.unit * torch.exp(self.log_std)

    @torch.no_grad()
    def initialize(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """a = m and sigma = s of the data, which fixes the units."""
        std = variance.sqrt()
        self.offset.copy_(mean)
        self.unit.copy_(std.clamp(min=self.min_std))
        self.shift.zero_()
        self.log_std.copy_(torch.log((std - self.min_std).clamp(min=0.1 * self.min_std) / self.unit))

    def energy(self, visible: Tensor) -> Tensor:
        return 0.5 * ((visible - self.loc) / self.std).square().sum(-1)

    def scale(self, visible: Tensor) -> Tensor:
        return (visible - self.offset) / self.std

    @torch.no_grad()
    def absorb(self, field: Tensor) -> None:
        self.shift.add_(self.std * field / self.unit)

    def natural(self, field: Tensor) -> Natural:
        std = self.std
        return self.loc / std.square() + field / std, -0.5 / std.square()

    def base(self, mean: Tensor, variance: Tensor) -> Natural:
        variance = variance.clamp(min=self.min_std**2)
        return mean / variance, -0.5 / variance

    def statistics(self, visible: Tensor) -> Natural:
        return visible, visible.square()

    def log_normalizer(self, natural: Natural) -> Tensor:
        linear, quadratic = natural
        return (0.5 * math.log(math.pi) - linear.square() / (4 * quadratic) - 0.5 * torch.log(-quadratic)).sum(-1)

    def mean(self, natural: Natural) -> Tensor:
        return natural[0] / (-2 * natural[1])

    def sample(self, natural: Natural) -> Tensor:
        mean = self.mean(natural)
        return mean + torch.rsqrt(-2 * natural[1]) * torch.randn_like(mean)

    def log_partition(self, field: Tensor) -> Tensor:
        # Completing the square by hand: A(eta) minus the constant of the energy would cancel large numbers.
        std = self.std
        constant = (0.5 * math.log(2 * math.pi) + torch.log(std)).sum()
        return constant + ((self.loc - self.offset) / std * field + 0.5 * field.square()).sum(-1)


VisibleFactory = Callable[[Shape], VisibleLayer]
