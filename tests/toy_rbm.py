"""Machines so small that everything about them is known by enumeration, with numbers worked out elsewhere."""

import math

import torch
from torch import Tensor

from lit_gen.inference import binary_states
from lit_gen.models import RBM
from lit_gen.networks import GaussianVisible

LOG_Z = 7.29838882863668
SLOW_LOG_Z = 13.930136192
IMAGES = torch.tensor([[1, 0, 1, 0, 1, 0], [1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 1]], dtype=torch.float64)
"""Three images, (3, 6)."""
GAUSSIAN_LOG_Z = 6.411340996618


def toy() -> RBM:
    """V = 6, H = 4, W_ij = 0.8 sin(1 + 4i + j), b_i = 0.3 cos(i), c_j = -0.2 + 0.1 j, in float64."""
    model = RBM((1, 2, 3), 4).double()
    rows, columns = torch.arange(6.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(0.8 * torch.sin(1 + 4 * rows + columns))
        model.visible.get_parameter("bias").copy_(0.3 * torch.cos(rows[:, 0]))
        model.hidden_bias.copy_(-0.2 + 0.1 * columns)
    return model


def slow_toy() -> RBM:
    """V = 6, H = 4, W_ij = 4 sin(1 + 4i + j), every unit as often on as off by itself: Gibbs chains hardly move."""
    model = toy()
    with torch.no_grad():
        model.weight.mul_(5)
        model.visible.get_parameter("bias").sub_(model.weight.sum(1) / 2)
        model.hidden_bias.sub_(model.weight.sum(0) / 2)
    return model


def numbers(visible: Tensor) -> Tensor:
    """Which of the states in the order of ``binary_states`` each is, ``(N, V) -> (N,)``."""
    return (visible @ (2.0 ** torch.arange(visible.shape[1] - 1, -1, -1).to(visible))).long()


def gaussian_toy() -> RBM:
    """V = H = 3, W_ij = 0.5 sin(1 + 3i + j), a = (0.5, -0.3, 0.1), c = (-0.2, 0.1, 0.3), sigma = (1, 0.5, 2)."""
    model = RBM((1, 1, 3), 3, visible=lambda shape: GaussianVisible(shape, min_std=0.01)).double()
    rows, columns = torch.arange(3.0, dtype=torch.float64)[:, None], torch.arange(3.0, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(0.5 * torch.sin(1 + 3 * rows + columns))
        model.visible.get_parameter("shift").copy_(torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64))
        model.visible.get_parameter("log_std").copy_(torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64).sub(0.01).log())
        model.hidden_bias.copy_(torch.tensor([-0.2, 0.1, 0.3], dtype=torch.float64))
        # log Z of annealing is right from any base; this one is near.
        model.machine.data_mean.copy_(torch.tensor([1.0, -0.5, 1.5]))
        model.machine.data_variance.copy_(torch.tensor([1.0, 0.3, 4.0]))
    return model


def log_probabilities(model: RBM) -> Tensor:
    """Exact log p(v) of all states of binary visible units in the order of ``binary_states``, differentiable."""
    return torch.log_softmax(-model.visible_free_energy(binary_states(model.visible.num_units)), 0)


def images(visible: Tensor, model: RBM) -> Tensor:
    """``(N, V)`` as images."""
    return visible.unflatten(1, model.image_shape)


def exact_samples(model: RBM, count: int) -> Tensor:
    """Independent draws of binary visible units, ``(count, V)``."""
    chosen = torch.multinomial(log_probabilities(model).exp(), count, replacement=True)
    return binary_states(model.visible.num_units)[chosen]


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent values and its standard error."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()
