"""Readers and writers of images: a grid of Gaussian filters that is moved and scaled, or the whole image.

Gregor, Danihelka, Graves, Rezende & Wierstra 2015, DRAW: a recurrent neural network for image generation
(https://arxiv.org/abs/1502.04623), sections 3.1 and 3.2.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import threshold

from lit_gen.networks.network import Recorded, Shape, full_precision
from lit_gen.networks.recurrent import linear_of_unit_gain

LARGEST_LOG = 20.0
"""Bound of log sigma^2, log delta and log gamma, far beyond what a window needs."""


class Window(NamedTuple):
    """Where square grids of Gaussian filters lie, in pixels; the centre of the first pixel is 0."""

    centre: Tensor
    """(B, 2) x and y of the middle of the grid."""
    stride: Tensor
    """(B,) distance between neighbouring filters."""
    std: Tensor
    """(B,) standard deviation of every filter."""
    intensity: Tensor
    """(B,) factor gamma of what is read, and 1 over that of what is written."""
    grid_size: int
    """N filters along each side."""

    @property
    def boxes(self) -> Tensor:
        """(B, 4) the pixels from the first filters to the last as (x0, y0, x1, y1): a pixel a goes from a to a + 1."""
        reach = (0.5 * (self.grid_size - 1) * self.stride)[:, None]
        return torch.cat([self.centre - reach, self.centre + reach + 1], 1)


class GaussianRows(torch.autograd.Function):
    """Gaussians over pixels that sum to one: exp(-(a - mean)^2 / (2 std^2)), normalized (equations 25 and 26).

    With its gradient written out, this takes a third of the operations that autograd would. There is no gradient of the
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, means: Tensor, std: Tensor, pixels: Tensor, outside: Tensor | None) -> Tensor:
        """``(B, 2, N, L)`` for means ``(B, 2, N)``, std ``(B,)``, pixels ``(L,)`` and -inf where an axis has none."""
        std = std[:, None, None, None]
        distances = (pixels - means[..., None]).div_(math.sqrt(2) * std)
        exponents = distances.square().neg_()
        weights = torch.softmax(exponents if outside is None else exponents + outside, -1)
        # The tails of sharp filters would be subnormal numbers, or make them of products, at which processors crawl.
        weights = threshold(weights, torch.finfo(weights.dtype).tiny ** (1 / 3), 0.0)
        ctx.save_for_backward(weights, distances, std)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weights, distances, std = ctx.saved_tensors
        product = gradient * weights
        of_exponents = product.addcmul_(weights, product.sum(-1, keepdim=True), value=-1)
        slopes = of_exponents * distances
        of_means = slopes.sum(-1) * (math.sqrt(2) / std[..., 0])
        of_std = 2 * (slopes * distances).sum((1, 2, 3)) / std[:, 0, 0, 0]
        return of_means, of_std, None, None


class FilterBank(nn.Module):
    """Square grids of N x N Gaussian filters on images of one size (equations 19 to 29).

    The paper counts pixels and filters from 1. Counted from 0, its formulas put the grid's middle at
    (A + 1) / 2 (g + 1) - 1 and filter i at (i - (N - 1) / 2) strides from it: five numbers of zero make the grid span
    the image from its first pixel to its last.

    Each filter sums to one over the pixels of the image, however far outside it lies. All is computed in float32 at
    least, under autocast too.

    Args:
        image_size: height and width.
        grid_size: N, at least 2.
    """

    offsets: Tensor
    pixels: Tensor
    half_size: Tensor
    outside: Tensor | None

    def __init__(self, image_size: tuple[int, int], grid_size: int) -> None:
        super().__init__()
        if grid_size < 2:
            raise ValueError(f"grid_size must be at least 2 filters along each side, got {grid_size}")
        self.image_size = image_size
        self.grid_size = grid_size
        height, width = image_size
        longest = max(image_size)
        self.unit_stride = (longest - 1) / (grid_size - 1)
        pixels = torch.arange(longest, dtype=torch.float32)
        # Both axes share one tensor; the shorter one has no weight beyond its end.
        outside = torch.where(pixels < torch.tensor([[width], [height]]), 0.0, -math.inf)[:, None]
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("offsets", torch.arange(grid_size) - (grid_size - 1) / 2, persistent=False)
        self.register_buffer("half_size", (torch.tensor([width, height]) + 1) / 2, persistent=False)
        self.register_buffer("outside", None if height == width else outside, persistent=False)

    def window(self, numbers: Tensor) -> Window:
        """The window that five numbers stand for: g_X, g_Y, log sigma^2, log delta, log gamma, ``(B, 5)``."""
        numbers = full_precision(numbers)
        centre = self.half_size * (numbers[:, :2] + 1) - 1  # equations 22 and 23
        # A run that diverges shall say so by its loss: sharper filters than these have no numbers at all.
        variance, stride, intensity = torch.exp(numbers[:, 2:].clamp(-LARGEST_LOG, LARGEST_LOG)).unbind(1)
        return Window(centre, self.unit_stride * stride, variance.sqrt(), intensity, self.grid_size)

    def filters(self, window: Window) -> tuple[Tensor, Tensor]:
        """F_Y ``(B, N, H)`` and F_X ``(B, N, W)``, whose rows sum to one (equations 25 and 26)."""
        means = window.centre[:, :, None] + window.stride[:, None, None] * self.offsets  # (B, 2, N), 19 and 20
        weights = GaussianRows.apply(means, window.std, self.pixels, self.outside)
        filter_x, filter_y = weights.unbind(1)
        height, width = self.image_size
        return filter_y[:, :, :height], filter_x[:, :, :width]

    def read(self, images: Tensor, window: Window) -> Tensor:
        """gamma F_Y x F_X^T of every channel: ``(B, C, H, W) -> (B, C, N, N)`` (equation 27)."""
        return self.read_all([images], window)

    def read_all(self, images: Sequence[Tensor], window: Window) -> Tensor:
        """The same of several batches of images, their channels one after another; filters are made once.

        The first product, of few rows with long ones, is the fastest that processors have for so small filters.
        """
        with torch.autocast(window.std.device.type, enabled=False):
            filter_y, filter_x = self.filters(window)
            rows = torch.cat([filter_y[:, None] @ batch for batch in images], 1)  # (B, C, N, W)
            patches = rows.flatten(1, 2) @ filter_x.mT * window.intensity[:, None, None]  # (B, C N, N)
            return patches.unflatten(1, rows.shape[1:3])

    def write(self, patches: Tensor, window: Window) -> Tensor:
        """1 / gamma F_Y^T w F_X of every channel: ``(B, C, N, N) -> (B, C, H, W)`` (equation 29)."""
        with torch.autocast(patches.device.type, enabled=False):
            filter_y, filter_x = self.filters(window)
            scaled = full_precision(patches) / window.intensity[:, None, None, None]
            columns = filter_y.mT[:, None] @ scaled  # (B, C, H, N)
            return (columns.flatten(1, 2) @ filter_x).unflatten(1, columns.shape[1:3])


class Glimpse(NamedTuple):
    """What a reader saw."""

    features: Tensor
    """(B, *output_shape)."""
    window: Window | None
    """Where it looked, or None for all of the image."""


class Stroke(NamedTuple):
    """What a writer adds."""

    increment: Tensor
    """(B, *canvas_shape)."""
    window: Window | None
    """Where it wrote, or None for all of the canvas."""


class Reader(Recorded, nn.Module, ABC):
    """Reads an image and what is still missing of it, guided by the hidden state of the decoder.

    Args:
        image_shape: ``(C, H, W)``.
        hidden_dim: units of the decoder. Its hidden state has the shape of the output, but for this many channels.
    """

    sizes = 2

    def __init__(self, image_shape: Shape, hidden_dim: int) -> None:
        super().__init__()
        self.image_shape = _picture(image_shape, "image_shape")
        self.hidden_dim = hidden_dim

    @property
    @abstractmethod
    def output_shape(self) -> Shape:
        """Shape of the features of one image: a vector, or maps ``(channels, height, width)``."""

    @abstractmethod
    def forward(self, images: Tensor, error: Tensor, hidden: Tensor) -> Glimpse:
        """Read images and error ``(B, C, H, W)``, given the hidden state of the decoder ``(B, hidden_dim, ...)``."""


class Writer(Recorded, nn.Module, ABC):
    """Turns the hidden state of the decoder into what is added to the canvas.

    Args:
        hidden_shape: of the decoder's hidden state.
        canvas_shape: ``(C, H, W)``, with as many channels as the likelihood wants.
    """

    sizes = 2

    def __init__(self, hidden_shape: Shape, canvas_shape: Shape) -> None:
        super().__init__()
        self.hidden_shape = tuple(hidden_shape)
        self.canvas_shape = _picture(canvas_shape, "canvas_shape")

    @abstractmethod
    def forward(self, hidden: Tensor) -> Stroke:
        """``(B, *hidden_shape)`` -> what is added, ``(B, *canvas_shape)``."""


ReaderFactory = Callable[[Shape, int], Reader]
WriterFactory = Callable[[Shape, Shape], Writer]


class FullReader(Reader):
    """Reads all pixels of the image and of the error, without attention (equation 17).

    Args:
        image_shape: ``(C, H, W)``.
        hidden_dim: units of the decoder, which is not asked.
    """

    @property
    def output_shape(self) -> Shape:
        return (2 * math.prod(self.image_shape),)

    def forward(self, images: Tensor, error: Tensor, hidden: Tensor) -> Glimpse:
        return Glimpse(torch.cat([images, error], 1).flatten(1), None)


class FullWriter(Writer):
    """Writes all pixels, without attention (equation 18).

    Args:
        hidden_shape: of the decoder's hidden state, a vector.
        canvas_shape: ``(C, H, W)``.
    """

    def __init__(self, hidden_shape: Shape, canvas_shape: Shape) -> None:
        super().__init__(hidden_shape, canvas_shape)
        self.linear = linear_of_unit_gain(math.prod(self.hidden_shape), math.prod(self.canvas_shape))

    def forward(self, hidden: Tensor) -> Stroke:
        return Stroke(full_precision(self.linear(hidden.flatten(1))).unflatten(1, self.canvas_shape), None)


class AttentiveReader(Reader):
    """Reads N x N blurred places of the image and of the error, where the decoder wants to look (equation 27).

    Args:
        image_shape: ``(C, H, W)``.
        hidden_dim: units of the decoder.
        grid_size: N filters along each side.
    """

    def __init__(self, image_shape: Shape, hidden_dim: int, grid_size: int = 2) -> None:
        super().__init__(image_shape, hidden_dim)
        self.filter_bank = FilterBank(self.image_shape[1:], grid_size)
        self.linear = linear_of_unit_gain(hidden_dim, 5)

    @property
    def output_shape(self) -> Shape:
        return (2 * self.image_shape[0] * self.filter_bank.grid_size**2,)

    def forward(self, images: Tensor, error: Tensor, hidden: Tensor) -> Glimpse:
        window = self.filter_bank.window(self.linear(hidden))
        return Glimpse(self.filter_bank.read_all([images, error], window).flatten(1), window)


class AttentiveWriter(Writer):
    """Writes a patch of N x N into a window that it chooses itself (equations 28 and 29).

    It starts with filters as wide as half the stride between them, and with an intensity by which a patch of ones adds
    about one to every pixel: the paper leaves biases open, and dots with gaps between them learn later.

    Args:
        hidden_shape: of the decoder's hidden state, a vector.
        canvas_shape: ``(C, H, W)``.
        grid_size: N filters along each side.
    """

    def __init__(self, hidden_shape: Shape, canvas_shape: Shape, grid_size: int = 5) -> None:
        super().__init__(hidden_shape, canvas_shape)
        self.filter_bank = FilterBank(self.canvas_shape[1:], grid_size)
        self.patch_shape = (self.canvas_shape[0], grid_size, grid_size)
        # The patch and the five numbers of the window in one product.
        self.linear = linear_of_unit_gain(math.prod(self.hidden_shape), 5 + math.prod(self.patch_shape))
        stride = max(1.0, self.filter_bank.unit_stride)  # a canvas of one pixel has none
        with torch.no_grad():
            self.linear.bias[2] = 2 * math.log(stride / 2)  # of log sigma^2
            self.linear.bias[4] = -2 * math.log(stride)  # of log gamma

    def forward(self, hidden: Tensor) -> Stroke:
        numbers = full_precision(self.linear(hidden.flatten(1)))
        window = self.filter_bank.window(numbers[:, :5])
        patches = numbers[:, 5:].unflatten(1, self.patch_shape)
        return Stroke(self.filter_bank.write(patches, window), window)


def _picture(shape: Shape, name: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{name} must be (channels, height, width), got {tuple(shape)}")
    return shape[0], shape[1], shape[2]
