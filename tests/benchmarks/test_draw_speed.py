"""DRAW as it is measured against computes what the model computes, and the measurement runs."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.draw_speed import COMPILED, IN_BF16, Case, contestants, measure


@pytest.mark.parametrize("case", [Case((1, 12, 9), 4, 5, 16, 2, 5), Case((3, 8, 11), 3, 4, 12, 4, 3)])
def test_equal_numbers_and_gradients_from_equal_weights(case: Case) -> None:
    torch.manual_seed(0)
    ours, plain = (model.double() for model in contestants(case))
    with torch.no_grad():
        for layer in (ours.reader.linear, ours.writer.linear):
            layer.weight.mul_(0.3)  # windows near the image: far outside it the plain filters fade, ours sum to one
        for parameter in (ours.initial_canvas, ours.initial_encoder, ours.initial_decoder):
            parameter.normal_(0, 0.3)
    plain.take_weights(ours)
    images = (torch.rand(6, *case.image_shape) > 0.5).double()
    noise = torch.randn(6, case.steps, case.latent_dim).double()
    drawing = ours.infer(images, noise)
    cross_entropy = binary_cross_entropy_with_logits(drawing.canvas, images, reduction="none").sum((1, 2, 3))
    reconstruction, kl = plain(images, noise)
    torch.testing.assert_close(reconstruction, cross_entropy)
    torch.testing.assert_close(kl, drawing.kl.sum(0))
    (cross_entropy + drawing.kl.sum(0)).mean().backward()
    (reconstruction + kl).mean().backward()
    assert plain.initial_canvas.grad is not None
    torch.testing.assert_close(plain.initial_canvas.grad, ours.initial_canvas.grad)
    torch.testing.assert_close(plain.read_window.weight.grad, ours.reader.linear.weight.grad)
    torch.testing.assert_close(plain.write_window.weight.grad, ours.writer.linear.weight.grad[:5])
    torch.testing.assert_close(plain.patch.weight.grad, ours.writer.linear.weight.grad[5:])
    head = torch.cat([plain.mean.weight.grad, plain.log_std.weight.grad])
    torch.testing.assert_close(head, ours.posterior_head.weight.grad)


# torch hides this warning of its own by a filter that comes after the one of the tests.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_it_measures_every_case() -> None:
    cases = (Case((1, 8, 8), 2, 3, 8, 2, 3), Case((1, 8, 8), 4, 3, 8, 2, 3))
    found = measure(2, cases, batch_size=5, backend="eager")
    ways = ("lit_gen", COMPILED, IN_BF16)
    assert set(found["ratios"]) == {f"{case.name}: {who} / plain" for case in cases for who in ways}
    for name, times in found["seconds_of_each_step"].items():
        assert {who: len(times[who]) for who in times} == dict.fromkeys(("plain", *ways), 2)
        for who in ways:
            ratio = min(times["plain"]) / min(times[who])
            assert found["milliseconds_per_step"][name][who] == pytest.approx(1000 * min(times[who]))
            assert found["ratios"][f"{name}: {who} / plain"] == pytest.approx(ratio)
