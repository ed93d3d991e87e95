"""Recurrent cells against torch's own."""

import pytest
import torch
from torch import nn

from lit_gen.networks import ConvLSTMCell, LSTMCell, LSTMState


def test_lstm_equals_torchs() -> None:
    ours, theirs = LSTMCell((3,), (4,)).double(), nn.LSTMCell(3, 4).double()
    with torch.no_grad():
        # Torch orders gates as input, forget, candidate, output.
        taken, kept, candidate, shown = torch.cat([theirs.weight_ih, theirs.weight_hh], 1).chunk(4)
        ours.linear.weight.copy_(torch.cat([taken, kept, shown, candidate]))
        taken, kept, candidate, shown = (theirs.bias_ih + theirs.bias_hh).chunk(4)
        ours.linear.bias.copy_(torch.cat([taken, kept, shown, candidate]))
    x = torch.randn(5, 2, 3).double()
    state = ours.start(torch.randn(4).double(), 2)
    hidden, cell = state
    for step in x:
        state, (hidden, cell) = ours(step, state), theirs(step, (hidden, cell))
    torch.testing.assert_close(state.hidden, hidden)
    torch.testing.assert_close(state.cell, cell)


def test_convolution_over_one_place_is_a_plain_cell() -> None:
    plain, conv = LSTMCell((3,), (4,)), ConvLSTMCell((3, 1, 1), (4, 1, 1), kernel_size=3)
    with torch.no_grad():
        conv.convolution.weight[:, :, 1, 1] = plain.linear.weight
        conv.convolution.bias.copy_(plain.linear.bias)  # type: ignore[union-attr]
    x, hidden, cell = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    maps = conv(x[..., None, None], LSTMState(hidden[..., None, None], cell[..., None, None]))
    torch.testing.assert_close(maps.hidden.flatten(1), plain(x, LSTMState(hidden, cell)).hidden)


def test_gradients_by_finite_differences() -> None:
    cell = LSTMCell((3,), (4,)).double()
    parts = [torch.randn(2, size, requires_grad=True).double() for size in (3, 4, 4)]
    assert torch.autograd.gradcheck(lambda x, hidden, memory: cell(x, LSTMState(hidden, memory)), parts)


def test_states_stay_in_float32_under_autocast() -> None:
    cell = LSTMCell((3,), (4,))
    with torch.autocast("cpu", torch.bfloat16):
        state = cell(torch.randn(2, 3), cell.start(torch.zeros(4), 2))
    assert state.hidden.dtype is state.cell.dtype is torch.float32


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        ConvLSTMCell((1, 3, 3), (2, 3, 3), kernel_size=4)
    with pytest.raises(ValueError, match="take a reader that gives such maps"):
        ConvLSTMCell((9,), (2,))
