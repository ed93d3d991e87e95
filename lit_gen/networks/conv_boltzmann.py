"""One convolutional restricted Boltzmann machine as a plain module, for pictures and for voxels.

Lee, Grosse, Ranganath & Ng 2009, Convolutional deep belief networks for scalable unsupervised learning of hierarchical
representations; strided and without pooling as in Wu et al. 2015, 3D ShapeNets (https://arxiv.org/abs/1406.5670).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_gen.distributions import sample_bernoulli
from lit_gen.networks.boltzmann import BipartiteLayer
from lit_gen.networks.network import Shape

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class ConvBoltzmannLayer(BipartiteLayer):
    """Binary hidden maps on binary visible maps: E(v, h) = -sum_f sum_j h_fj ((W_f * v)_j + c_f) - b v.

    ``*`` is the cross-correlation at every ``stride``-th place; filters share their weights and hidden bias over all
    places, and every visible unit has a bias of its own. Energies and fields are computed in full precision whatever
    the autocast.

    Args:
        visible_shape: ``(C, *sides)`` with one to three sides.
        num_filters: F, number of hidden maps.
        kernel_size: side of a filter.
        stride: places from one hidden unit to the next.

    Raises:
        ValueError: a filter that is larger than what it looks at.
    """

    def __init__(self, visible_shape: Shape, num_filters: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        channels, *sides = visible_shape
        if len(sides) not in CONVOLUTIONS:
            raise ValueError(f"visible_shape must be (channels, *sides) with 1 to 3 sides, got {tuple(visible_shape)}")
        if min(num_filters, kernel_size, stride) < 1:
            raise ValueError(
                f"num_filters, kernel_size and stride must be at least 1, got {num_filters}, {kernel_size} and {stride}"
            )
        if kernel_size > min(sides):
            raise ValueError(
                f"filters of size {kernel_size} do not fit into maps of {'x'.join(map(str, sides))}: choose smaller"
                " kernel_sizes or strides, or larger images"
            )
        self.visible_shape = tuple(visible_shape)
        self.hidden_shape = (num_filters, *((side - kernel_size) // stride + 1 for side in sides))
        self.kernel_size = kernel_size
        self.stride = stride
        # As in the published code; the range keeps the variance from layer to layer (Glorot & Bengio 2010).
        bound = math.sqrt(6 / (kernel_size ** len(sides) * (channels + num_filters)))
        weight = torch.empty(num_filters, channels, *[kernel_size] * len(sides))
        self.weight = nn.Parameter(weight.uniform_(-bound, bound))
        self.hidden_bias = nn.Parameter(torch.zeros(num_filters))
        # Flat, as every bias is: weight decay spares parameters of one dimension.
        self.visible_bias = nn.Parameter(torch.zeros(math.prod(visible_shape)))

    @torch.no_grad()
    def initialize(self, mean: Tensor, count: int) -> None:
        """Visible biases at the log-odds of the data, with one example on and one off added to the count.

        Args:
            mean: of each visible unit, ``(V,)``.
            count: number of examples they were taken from.
        """
        self.visible_bias.copy_(torch.logit((mean * count + 1) / (count + 2)))

    # ---- fields and energies

    def _convolve(self, visible: Tensor) -> Tensor:
        return CONVOLUTIONS[visible.ndim - 2](visible, self.weight, self.hidden_bias, self.stride)

    def hidden_input(self, visible: Tensor) -> Tensor:
        """c + W * v, the logits of p(h = 1 given v): ``(B, *visible_shape) -> (B, *hidden_shape)``."""
        with torch.autocast(visible.device.type, enabled=False):
            return self._convolve(visible)

    def field(self, hidden: Tensor) -> Tensor:
        """The adjoint of the convolution, what hidden units exert on visible ones.

        Args:
            hidden: ``(B, *hidden_shape)``.

        Returns:
            ``(B, *visible_shape)``.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            sides, places = self.visible_shape[1:], self.hidden_shape[1:]
            if self.stride > 1 and self.visible_shape[0] < self.stride ** len(sides) and self._in_blocks:
                return self._blockwise_field(hidden)
            rest = [(side - self.kernel_size) % self.stride for side in sides]
            return TRANSPOSED[len(places)](hidden, self.weight, stride=self.stride, output_padding=rest)

    @property
    def _in_blocks(self) -> bool:
        return all(side % self.stride == 0 for side in (*self.visible_shape[1:], self.kernel_size))

    def _blockwise_field(self, hidden: Tensor) -> Tensor:
        """The field as a plain convolution to blocks of voxels: five times as fast on a CPU where channels are few."""
        dims, stride, blocks = len(self.visible_shape) - 1, self.stride, self.kernel_size // self.stride
        # (F, C, k, ..., k) -> (C, s, ..., s, F, k/s, ..., k/s), flipped.
        kernel: Tensor = self.weight
        for dim in range(dims):
            kernel = kernel.unflatten(2 + 2 * dim, (blocks, stride))
        inner, outer = [3 + 2 * dim for dim in range(dims)], [2 + 2 * dim for dim in range(dims)]
        kernel = kernel.permute(1, *inner, 0, *outer).flatten(0, dims).flip(list(range(2, 2 + dims)))
        out = CONVOLUTIONS[dims](hidden, kernel, padding=blocks - 1)
        out = out.unflatten(1, (self.visible_shape[0], *[stride] * dims))  # (B, C, s, ..., s, side/s, ...)
        order = [part for dim in range(dims) for part in (2 + dims + dim, 2 + dim)]
        return out.permute(0, 1, *order).reshape(len(hidden), *self.visible_shape)

    def visible_energy(self, visible: Tensor) -> Tensor:
        """E(v, 0): ``(B, *visible_shape) -> (B,)`` nats."""
        with torch.autocast(visible.device.type, enabled=False):
            return -(visible.flatten(1) @ self.visible_bias)

    # ---- conditionals

    def visible_mean(self, hidden: Tensor) -> Tensor:
        """p(v = 1 given h): ``(B, *hidden_shape) -> (B, *visible_shape)``."""
        return torch.sigmoid(self.field(hidden) + self.visible_bias.view(self.visible_shape))

    def sample_visible(self, hidden: Tensor) -> Tensor:
        """A draw of v given h."""
        return sample_bernoulli(self.visible_mean(hidden))

    # ---- learning

    def occupied(self, visible: Tensor) -> Tensor:
        """Whether the receptive field of a place holds anything: ``(B, *visible_shape) -> (B, 1, *places)`` of bool."""
        some = visible.amax(1, keepdim=True)
        pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[visible.ndim - 2]
        return pool(some, self.kernel_size, self.stride) > 0

    def contrast(
        self,
        data: Tensor,
        model: Tensor,
        skip_empty: bool = False,
        sparsity_target: float = 0.0,
        sparsity_cost: float = 0.0,
    ) -> Tensor:
        """Free energy of data less that of states of the model, scaled as the paper's code scales gradients.

        The part of the filters is averaged over places, that of the visible biases divided by the width of a hidden
        map. A place that is empty in the data says nothing of a filter: it may be left out for both terms, and the mean
        is over the others, N / (N - N_empty) of the mean over all.

        Args:
            data: ``(B, *visible_shape)``.
            model: as many states of the model, of which the b-th belongs to the b-th of the data; without gradient.
            skip_empty: leave out places whose receptive field is empty in the data.
            sparsity_target: activity that hidden units shall have.
            sparsity_cost: how strongly the hidden biases, and nothing else, are drawn to it.

        Returns:
            A scalar.
        """
        inputs, others = self.hidden_input(torch.cat([data, model])).chunk(2)
        places = self.occupied(data) if skip_empty else torch.ones_like(inputs[:, :1], dtype=torch.bool)
        count = places.sum().clamp(min=1)
        filters = ((F.softplus(others) - F.softplus(inputs)) * places).sum() / count
        visible = (self.visible_energy(data) - self.visible_energy(model)).mean() / self.hidden_shape[-1]
        loss = filters + visible
        if sparsity_cost > 0:
            summed = [0, *range(2, inputs.ndim)]
            activity = (torch.sigmoid(inputs.detach()) * places).sum(summed) / count
            loss = loss + sparsity_cost * (activity - sparsity_target) @ self.hidden_bias
        return loss
