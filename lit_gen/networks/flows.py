"""Normalizing flows: invertible maps that turn a simple density into a flexible one.

Planar and radial: Rezende & Mohamed 2015, Variational inference with normalizing flows
(https://arxiv.org/abs/1505.05770). Inverse autoregressive: Kingma et al. 2016, Improving variational inference with
inverse autoregressive flow (https://arxiv.org/abs/1606.04934), on the masks of Germain et al. 2015, MADE
(https://arxiv.org/abs/1502.03509).

The maps are transforms of torch.distributions that keep their last argument, so that a draw and its density cost one
pass; a :class:`Flow` makes them from numbers that an encoder gives for each image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Transform, TransformedDistribution, constraints
from torch.nn.functional import elu, linear, logsigmoid, softplus

from lit_gen.networks.network import Recorded, full_precision


class VectorTransform(Transform):
    """An invertible map of vectors ``(..., D)`` that keeps its last argument and value."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self) -> None:
        super().__init__(cache_size=1)


class PlanarTransform(VectorTransform):
    r"""Equation 10: :math:`f(z) = z + \hat u \tanh(w^\top z + b)`, stretched or squeezed across a plane.

    Of the given direction u only the part along w is changed: :math:`w^\top \hat u = -1 + \log(1 + e^{w^\top u})`
    exceeds -1, which makes the map invertible (appendix A.1). Its inverse has no closed form: it comes from bisection
    along w, with exact gradients.

    Args:
        weight: w, ``(..., D)``.
        direction: u, ``(..., D)``.
        bias: b, ``(..., 1)``.
    """

    def __init__(self, weight: Tensor, direction: Tensor, bias: Tensor) -> None:
        super().__init__()
        along = (weight * direction).sum(-1, keepdim=True)
        length = weight.square().sum(-1, keepdim=True)
        # Without a plane, as where an encoder starts at zero, w'u is 0 whatever u: a shift, and no constraint to hold.
        flat = length < torch.finfo(weight.dtype).tiny
        length = length.masked_fill(flat, 1.0)
        self.weight = weight
        self.bias = bias
        self.margin = softplus(along).masked_fill(flat, 1.0)
        """1 + w'u of the changed u: positive even where the sum would be rounded to zero."""
        self.direction = direction + (self.margin - 1 - along) * weight / length

    def _bend(self, x: Tensor) -> Tensor:
        return torch.tanh((self.weight * x).sum(-1, keepdim=True) + self.bias)

    def _slope(self, bend: Tensor) -> Tensor:
        # 1 + w'u (1 - tanh^2), as a sum of positive terms.
        return bend.square() + self.margin * (1 - bend.square())

    def _call(self, x: Tensor) -> Tensor:
        return x + self.direction * self._bend(x)

    def _inverse(self, y: Tensor) -> Tensor:
        target = (self.weight * y).sum(-1, keepdim=True)
        strength = self.margin - 1
        with torch.no_grad():
            low, high = target - strength.abs(), target + strength.abs()
            for _ in range(torch.finfo(y.dtype).bits):
                middle = 0.5 * (low + high)
                below = middle + strength * torch.tanh(middle + self.bias) < target
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        root = 0.5 * (low + high)
        # The implicit function theorem: one step of Newton's method whose value is zero has the gradient of the root.
        bend = torch.tanh(root + self.bias)
        error = root + strength * bend - target
        root = root - (error - error.detach()) / self._slope(bend).detach()
        return y - self.direction * torch.tanh(root + self.bias)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.log(self._slope(self._bend(x))).squeeze(-1)


class RadialTransform(VectorTransform):
    r"""Equation 14: :math:`f(z) = z + \beta (z - z_0) / (\alpha + |z - z_0|)`, pulled to a point or pushed away.

    :math:`\beta = -\alpha + \log(1 + e^{\hat\beta})` exceeds :math:`-\alpha`, which makes the map invertible (appendix
    A.2); the inverse solves a quadratic equation.

    Args:
        centre: z_0, ``(..., D)``.
        radius: alpha, ``(..., 1)``, positive.
        strength: beta before it is constrained, ``(..., 1)``.
    """

    def __init__(self, centre: Tensor, radius: Tensor, strength: Tensor) -> None:
        super().__init__()
        self.centre = centre
        self.radius = radius
        self.margin = softplus(strength)
        """alpha + beta, positive."""

    def _scale(self, distance: Tensor) -> Tensor:
        # 1 + beta h(r) with h = 1 / (alpha + r).
        return (distance + self.margin) / (distance + self.radius)

    def _call(self, x: Tensor) -> Tensor:
        offset = x - self.centre
        return self.centre + offset * self._scale(torch.linalg.vector_norm(offset, dim=-1, keepdim=True))

    def _inverse(self, y: Tensor) -> Tensor:
        offset = y - self.centre
        distance = torch.linalg.vector_norm(offset, dim=-1, keepdim=True)
        # r (r + margin) = distance (r + alpha); of the two forms of the root the one that subtracts nothing.
        excess = distance - self.margin
        root = torch.sqrt(excess.square() + 4 * distance * self.radius)
        root = torch.where(excess > 0, 0.5 * (excess + root), 2 * distance * self.radius / (root + excess.abs()))
        return self.centre + offset / self._scale(root)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(x - self.centre, dim=-1, keepdim=True)
        across = torch.log(self._scale(distance))
        along = distance.square() + 2 * distance * self.radius + self.radius * self.margin
        along = torch.log(along) - 2 * torch.log(distance + self.radius)
        return ((x.shape[-1] - 1) * across + along).squeeze(-1)


class AutoregressiveTransform(VectorTransform):
    r"""Algorithm 1 of Kingma et al.: :math:`f(z) = \sigma \odot z + (1 - \sigma) \odot m`, a gate like that of an LSTM.

    m and the logit of the gate of a latent depend on the latents before it only, so that the Jacobian is triangular.
    The inverse takes as many passes as there are latents. It divides by the gate: no logit counts as less than -7, so
    that float32 still tells there what a gate of 0.001 let through.

    Args:
        network: z ``(..., D)`` to m and the logits, ``(..., D)`` each.
        descending: the latents before one are those of higher number.
    """

    lowest_logit = -7.0
    farthest = 1e9
    """Where the inverse holds points that no draw comes from, whose squares would overflow."""

    def __init__(self, network: Callable[[Tensor], tuple[Tensor, Tensor]], descending: bool = False) -> None:
        super().__init__()
        self.network = network
        self.descending = descending
        self._gate: tuple[Tensor | None, Tensor | None] = (None, None)

    def _outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, logit = self.network(x)
        return mean, logit.clamp(min=self.lowest_logit)

    def _call(self, x: Tensor) -> Tensor:
        mean, logit = self._outputs(x)
        self._gate = (x, logit)
        return torch.lerp(mean, x, torch.sigmoid(logit))

    def _inverse(self, y: Tensor) -> Tensor:
        places = range(y.shape[-1])
        known: list[Tensor] = [torch.zeros_like(y[..., 0])] * len(places)
        for place in reversed(places) if self.descending else places:
            # The network sees zeros, and no half-solved numbers that could run away, for the latents yet to come.
            x = torch.stack(torch.broadcast_tensors(*known), -1)
            mean, logit = (output[..., place] for output in self._outputs(x))
            solved = mean + (y[..., place] - mean) / torch.sigmoid(logit)
            known[place] = solved.clamp(-self.farthest, self.farthest)
        return torch.stack(torch.broadcast_tensors(*known), -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        known, logit = self._gate
        if known is not x or logit is None:
            logit = self._outputs(x)[1]
        return logsigmoid(logit).sum(-1)


class MaskedLinear(nn.Linear):
    """A linear layer some of whose connections are cut.

    Args:
        mask: ``(out_features, in_features)``, true where a connection stays.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """Two numbers for each latent from the latents before it, and from a context (Germain et al. 2015).

    Args:
        dim: number of latents, D.
        context_dim: size of the context, which every output sees.
        hidden_dims: width of each hidden layer, at least one of them; best no narrower than D.
        descending: the order is that from the last latent to the first.
    """

    def __init__(self, dim: int, context_dim: int, hidden_dims: Sequence[int], descending: bool = False) -> None:
        super().__init__()
        degrees = [torch.arange(1, dim + 1).flip(0) if descending else torch.arange(1, dim + 1)]
        # Units of degree 0 see the context alone, without which the first latent would not see it.
        degrees += [torch.arange(width) % dim for width in hidden_dims]
        hidden = [MaskedLinear(after[:, None] >= before) for before, after in pairwise(degrees)]
        self.hidden = nn.ModuleList(hidden)
        self.context = nn.Linear(context_dim, hidden_dims[0])
        self.output = MaskedLinear((degrees[0][:, None] > degrees[-1]).repeat(2, 1))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """``(..., B, D)`` and ``(B, context_dim)`` to two of ``(..., B, D)``."""
        features = self.context(context)
        for number, layer in enumerate(self.hidden):
            features = elu(layer(z) + features if number == 0 else layer(features))
        mean, logit = self.output(features).chunk(2, -1)
        return mean, logit


class Flow(Recorded, nn.Module, ABC):
    """A chain of maps of latents, from numbers that an encoder gives for each image.

    Args:
        latent_dim: number of latents, D.
        length: number of maps, K.
    """

    sizes = 1
    num_parameters: int
    """How many numbers it takes for each image."""

    def __init__(self, latent_dim: int, length: int) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}; a posterior without flows is that of the VAE")
        self.latent_dim = latent_dim
        self.length = length

    @abstractmethod
    def forward(self, parameters: Tensor) -> list[Transform]:
        """``(..., num_parameters)`` to maps of ``(..., D)``, the first to be applied first."""

    @property
    def num_outputs(self) -> int:
        """What an encoder that ends in this flow gives: mean and log-variance of its base, and its parameters."""
        return 2 * self.latent_dim + self.num_parameters

    def posterior(self, outputs: Tensor) -> Distribution:
        """q(z given x): a diagonal normal distribution carried along the flow.

        Args:
            outputs: ``(..., num_outputs)`` of an encoder.

        Returns:
            A distribution with events ``(D,)``. The density of its last draw costs nothing more; of other points it
            takes the inverse.
        """
        sizes = [self.latent_dim, self.latent_dim, self.num_parameters]
        mean, log_variance, parameters = full_precision(outputs).split(sizes, -1)
        base = Independent(Normal(mean, torch.exp(0.5 * log_variance), validate_args=False), 1, validate_args=False)
        return TransformedDistribution(base, self(parameters), validate_args=False)


FlowFactory = Callable[[int], Flow]


class PlanarFlow(Flow):
    """K planar maps, (2D + 1) numbers each (Rezende & Mohamed 2015).

    Args:
        latent_dim: number of latents, D.
        length: number of maps, K; 10 to 80 in the paper.
    """

    def __init__(self, latent_dim: int, length: int = 10) -> None:
        super().__init__(latent_dim, length)
        self.num_parameters = length * (2 * latent_dim + 1)

    def forward(self, parameters: Tensor) -> list[Transform]:
        sizes = [self.latent_dim, self.latent_dim, 1]
        return [PlanarTransform(*part.split(sizes, -1)) for part in parameters.chunk(self.length, -1)]


class RadialFlow(Flow):
    """K radial maps, (D + 2) numbers each (Rezende & Mohamed 2015).

    Args:
        latent_dim: number of latents, D.
        length: number of maps, K.
    """

    def __init__(self, latent_dim: int, length: int = 10) -> None:
        super().__init__(latent_dim, length)
        self.num_parameters = length * (latent_dim + 2)

    def forward(self, parameters: Tensor) -> list[Transform]:
        maps: list[Transform] = []
        for part in parameters.chunk(self.length, -1):
            centre, radius, strength = part.split([self.latent_dim, 1, 1], -1)
            maps.append(RadialTransform(centre, softplus(radius), strength))
        return maps


class InverseAutoregressiveFlow(Flow):
    """K autoregressive maps with networks of their own, in alternating order (Kingma et al. 2016).

    An image takes part through a context that all of them see.

    Args:
        latent_dim: number of latents, D.
        length: number of maps, K.
        hidden_dims: width of each hidden layer of each network; best no narrower than D.
        context_dim: size of the context.
        gate_bias: added to the logits of the gates, so that each map is near the identity at first (1 or 2).
    """

    def __init__(
        self,
        latent_dim: int,
        length: int = 2,
        hidden_dims: Sequence[int] = (320,),
        context_dim: int = 64,
        gate_bias: float = 2.0,
    ) -> None:
        super().__init__(latent_dim, length)
        if not hidden_dims:
            raise ValueError("hidden_dims must name at least one layer, got none")
        self.num_parameters = context_dim
        self.gate_bias = gate_bias
        self.networks = nn.ModuleList(
            MADE(latent_dim, context_dim, hidden_dims, descending=number % 2 == 1) for number in range(length)
        )

    def forward(self, parameters: Tensor) -> list[Transform]:
        return [
            AutoregressiveTransform(self._network(network, parameters), descending=number % 2 == 1)
            for number, network in enumerate(self.networks)
        ]

    def _network(self, network: nn.Module, context: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def conditioned(z: Tensor) -> tuple[Tensor, Tensor]:
            mean, logit = network(z, context)
            return full_precision(mean), full_precision(logit) + self.gate_bias

        return conditioned
