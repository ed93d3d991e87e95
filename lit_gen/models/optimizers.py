"""Optimizers with defaults that survive the command line (a class serialises where a lambda with betas does not)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import ParamsT


class FusedAdam(torch.optim.Adam):
    """Adam in one kernel for all parameters: the same update as ``torch.optim.Adam``, in about 0.8 of its time.

    Args:
        params: parameters to optimize.
        lr: learning rate.
        betas: decay of the running mean of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: L2 penalty, added to the gradient.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        # Lightning clips gradients itself and must unscale them first under fp16; torch marks fused optimizers as
        # unscaling on their own, which makes Lightning refuse to clip. An explicit unscale is right for both.
        self._step_supports_amp_scaling = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._step_supports_amp_scaling = False


class GANAdam(FusedAdam):
    """Adam as DCGAN has it (Radford et al. 2015, section 4): with the usual 0.9 for the first moment, it oscillates.

    Args:
        params: parameters to optimize.
        lr: learning rate.
        betas: decay of the running mean of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: L2 penalty, added to the gradient.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


class FusedSGD(torch.optim.SGD):
    """SGD with momentum in one kernel for all parameters: the update of ``torch.optim.SGD``, in half of its time.

    Args:
        params: parameters to optimize.
        lr: learning rate.
        momentum: share of the last update that is repeated.
        weight_decay: L2 penalty, added to the gradient.
        nesterov: look ahead.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)
        self._step_supports_amp_scaling = False  # as in FusedAdam

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._step_supports_amp_scaling = False


def groups_by_decay(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer whose weight decay spares biases (parameters of one dimension)."""
    parameters = list(parameters)
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
