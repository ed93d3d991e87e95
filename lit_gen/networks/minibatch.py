"""Layers by which a discriminator compares the images of a batch, and so sees that they are too much alike."""

import torch
from torch import Tensor, nn

from lit_gen.networks.network import full_precision


class MinibatchDeviation(nn.Module):
    """Appends to each image one map of how much the batch varies, by which a discriminator sees a collapse.

    The standard deviation over the batch of every unit, averaged over units (Karras et al. 2017, Progressive growing of
    GANs, https://arxiv.org/abs/1710.10196, section 3), here over the whole batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...) -> (B, C + 1, ...)``."""
        deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean()
        return torch.cat([x, deviation.to(x.dtype).expand(len(x), 1, *x.shape[2:])], 1)


class MinibatchDiscrimination(nn.Module):
    """Appends to each image how close it is to those of its batch, by learned distances.

    M_i = f(x_i) T has a row for each kernel b, and o_b(x_i) = sum_j exp(-||M_ib - M_jb||_1) counts the images that are
    close by that kernel, the image itself among them: 1 for an image like no other, B in a batch of copies (Salimans et
    al. 2016, Improved techniques for training GANs, https://arxiv.org/abs/1606.03498, section 3.2).

    The batch is what is computed at once: a part of it under ``micro_batches``, and the images of one process.

    Args:
        units: of one image.
        kernels: numbers appended.
        kernel_dim: in which each kernel measures distances.
    """

    def __init__(self, units: int, kernels: int = 100, kernel_dim: int = 5) -> None:
        super().__init__()
        if kernels < 1 or kernel_dim < 1:
            raise ValueError(f"kernels and kernel_dim must be at least 1, got {kernels} and {kernel_dim}")
        self.tensor = nn.Parameter(0.05 * torch.randn(units, kernels, kernel_dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, units) -> (B, units + kernels)``."""
        rows = full_precision(torch.einsum("iu,ukd->ikd", x, self.tensor))
        distances = (rows[:, None] - rows[None]).abs().sum(3)  # (B, B, kernels)
        return torch.cat([x, torch.exp(-distances).sum(1).to(x.dtype)], 1)
