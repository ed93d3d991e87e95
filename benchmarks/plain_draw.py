"""DRAW as a reader of the paper writes it in PyTorch, equation by equation, for comparison.

Gregor et al. 2015, DRAW: a recurrent neural network for image generation (https://arxiv.org/abs/1502.04623). Modules
and their order are those of the usual public programs: ``nn.LSTMCell``, a linear layer for each quantity, filters of
rows after those of columns, the error image read after the image, KL summed up step by step. The equations are those
of ``lit_gen.models.DRAW`` (pixels counted from 0), so that equal weights give equal numbers: see
:meth:`PlainDRAW.take_weights`. Filters are divided by their sum over the image, those that lie far outside it fade.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_gen.models import DRAW
from lit_gen.networks import AttentiveReader, AttentiveWriter, LSTMCell


class PlainDRAW(nn.Module):
    """DRAW with attention, for binary images.

    Args:
        image_shape: ``(C, H, W)``.
        steps: T.
        latent_dim: units of z_t.
        hidden_dim: units of encoder and decoder.
        read_size: filters along each side of the reader's grid.
        write_size: of the writer's.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        steps: int,
        latent_dim: int,
        hidden_dim: int,
        read_size: int,
        write_size: int,
    ) -> None:
        super().__init__()
        self.channels, self.height, self.width = image_shape
        self.steps, self.latent_dim = steps, latent_dim
        self.read_size, self.write_size = read_size, write_size
        self.encoder = nn.LSTMCell(2 * self.channels * read_size**2 + hidden_dim, hidden_dim)
        self.decoder = nn.LSTMCell(latent_dim, hidden_dim)
        self.mean = nn.Linear(hidden_dim, latent_dim)
        self.log_std = nn.Linear(hidden_dim, latent_dim)
        self.read_window = nn.Linear(hidden_dim, 5)
        self.write_window = nn.Linear(hidden_dim, 5)
        self.patch = nn.Linear(hidden_dim, self.channels * write_size**2)
        self.initial_canvas = nn.Parameter(torch.zeros(image_shape))
        self.initial_encoder = nn.Parameter(torch.zeros(hidden_dim))
        self.initial_decoder = nn.Parameter(torch.zeros(hidden_dim))

    def filters(self, numbers: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Equations 19 to 26: F_X ``(B, N, W)``, F_Y ``(B, N, H)`` and gamma ``(B, 1)`` of five numbers."""
        g_x, g_y, log_variance, log_delta, log_gamma = numbers.split(1, 1)
        centre_x = (self.width + 1) / 2 * (g_x + 1) - 1
        centre_y = (self.height + 1) / 2 * (g_y + 1) - 1
        delta = (max(self.width, self.height) - 1) / (size - 1) * torch.exp(log_delta)
        variance = torch.exp(log_variance)
        offsets = torch.arange(size, device=numbers.device) - (size - 1) / 2
        mean_x = centre_x + offsets * delta
        mean_y = centre_y + offsets * delta
        columns = torch.arange(self.width, device=numbers.device)
        rows = torch.arange(self.height, device=numbers.device)
        filter_x = torch.exp(-((columns - mean_x[:, :, None]) ** 2) / (2 * variance[:, :, None]))
        filter_x = filter_x / filter_x.sum(2, keepdim=True).clamp(min=1e-8)
        filter_y = torch.exp(-((rows - mean_y[:, :, None]) ** 2) / (2 * variance[:, :, None]))
        filter_y = filter_y / filter_y.sum(2, keepdim=True).clamp(min=1e-8)
        return filter_x, filter_y, torch.exp(log_gamma)

    def read(self, x: Tensor, error: Tensor, hidden: Tensor) -> Tensor:
        """Equation 27."""
        filter_x, filter_y, gamma = self.filters(self.read_window(hidden), self.read_size)
        patches = []
        for image in (x, error):
            patch = filter_y[:, None] @ image @ filter_x[:, None].transpose(2, 3)
            patches.append(gamma * patch.reshape(len(x), -1))
        return torch.cat(patches, 1)

    def write(self, hidden: Tensor) -> Tensor:
        """Equations 28 and 29."""
        filter_x, filter_y, gamma = self.filters(self.write_window(hidden), self.write_size)
        patch = self.patch(hidden).view(-1, self.channels, self.write_size, self.write_size)
        written = filter_y[:, None].transpose(2, 3) @ patch @ filter_x[:, None]
        return written / gamma[:, :, None, None]

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction loss and KL of each image, ``(B,)`` nats.

        Args:
            x: ``(B, C, H, W)`` in [0, 1].
            noise: ``(B, T, latent_dim)``; None draws it.
        """
        batch = len(x)
        canvas = self.initial_canvas.expand(batch, -1, -1, -1)
        encoder = self.initial_encoder.expand(batch, -1), torch.zeros(batch, len(self.initial_encoder), device=x.device)
        decoder = self.initial_decoder.expand(batch, -1), torch.zeros(batch, len(self.initial_decoder), device=x.device)
        kl = torch.zeros(batch, device=x.device)
        for step in range(self.steps):
            error = x - torch.sigmoid(canvas)
            read = self.read(x, error, decoder[0])
            encoder = self.encoder(torch.cat([read, decoder[0]], 1), encoder)
            mean, log_std = self.mean(encoder[0]), self.log_std(encoder[0])
            std = torch.exp(log_std)
            epsilon = torch.randn(batch, self.latent_dim, device=x.device) if noise is None else noise[:, step]
            kl = kl + 0.5 * (mean**2 + std**2 - 2 * log_std - 1).sum(1)
            decoder = self.decoder(mean + std * epsilon, decoder)
            canvas = canvas + self.write(decoder[0])
        loss = binary_cross_entropy_with_logits(canvas, x, reduction="none").sum((1, 2, 3))
        return loss, kl

    @torch.no_grad()
    def take_weights(self, model: DRAW) -> None:
        """Compute what this model computes."""
        assert isinstance(model.reader, AttentiveReader)
        assert isinstance(model.writer, AttentiveWriter)
        for cell, other in ((self.encoder, model.encoder), (self.decoder, model.decoder)):
            assert isinstance(other, LSTMCell)
            inputs = cell.input_size
            weight, bias = _torch_order(other.linear.weight), _torch_order(other.linear.bias)
            cell.weight_ih.copy_(weight[:, :inputs])
            cell.weight_hh.copy_(weight[:, inputs:])
            cell.bias_ih.copy_(bias)
            cell.bias_hh.zero_()
        head = model.posterior_head
        assert isinstance(head, nn.Linear)
        pairs = [
            (self.mean, head, slice(0, self.latent_dim)),
            (self.log_std, head, slice(self.latent_dim, None)),
            (self.read_window, model.reader.linear, slice(0, 5)),
            (self.write_window, model.writer.linear, slice(0, 5)),
            (self.patch, model.writer.linear, slice(5, None)),
        ]
        for layer, other, rows in pairs:
            layer.weight.copy_(other.weight[rows])
            layer.bias.copy_(other.bias[rows])
        for name in ("initial_canvas", "initial_encoder", "initial_decoder"):
            getattr(self, name).copy_(getattr(model, name))


def _torch_order(gates: Tensor) -> Tensor:
    """Input, forget and output gate and candidate in the order of ``nn.LSTMCell``: the candidate before the output."""
    taken, kept, shown, candidate = gates.chunk(4)
    return torch.cat([taken, kept, candidate, shown])
