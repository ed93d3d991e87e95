"""Sizes of the networks for images of every shape, and what they remember of their construction."""

from typing import Literal

import pytest
import torch
from torch import nn

from lit_gen.networks import (
    MLP,
    BernoulliLikelihood,
    ConvDecoder,
    ConvEncoder,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
    build,
)

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 28, 20), (3, 64, 64), (1, 8, 8), (4, 17, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_convolutions_derive_their_sizes(shape: tuple[int, int, int], batch_norm: bool) -> None:
    images = torch.rand(2, *shape)
    code = ConvEncoder(shape, (6,), channels=(4, 8, 8), batch_norm=batch_norm)(images)
    assert code.shape == (2, 6)
    assert ConvDecoder((6,), shape, channels=(8, 8, 4), batch_norm=batch_norm)(code).shape == images.shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arguments", [{}, {"kernel_size": 4}, {"kernel_size": 4, "residual_blocks": 1}])
def test_one_number_of_channels_gives_a_pyramid(shape: tuple[int, int, int], arguments: dict[str, int]) -> None:
    images = torch.rand(2, *shape)
    code = ConvEncoder(shape, (6,), channels=3, **arguments)(images)  # type: ignore[arg-type]
    assert ConvDecoder((6,), shape, channels=3, **arguments)(code).shape == images.shape  # type: ignore[arg-type]


def test_4x4_kernels_touch_every_pixel_equally_often() -> None:
    def touched(kernel_size: Literal[3, 4]) -> torch.Tensor:
        decoder = ConvDecoder((1,), (1, 16, 16), channels=[1, 1], activation="relu", kernel_size=kernel_size)
        for name, parameter in decoder.named_parameters():
            torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
        return decoder(torch.ones(1, 1))[0, 0, 4:-4, 4:-4]

    assert touched(4).unique().numel() == 1
    assert touched(3).unique().numel() > 1


def test_parameter_counts_of_the_papers_networks() -> None:
    # Kingma & Welling 2013 with 500 hidden units and 20 latents on MNIST.
    count = lambda network: sum(parameter.numel() for parameter in network.parameters())  # noqa: E731
    assert count(MLP((1, 28, 28), (40,))) == 412_540
    assert count(MLP((20,), (1, 28, 28))) == 403_284


def test_convolutions_have_the_hidden_layers_of_caterini() -> None:
    # Convolutions of 16, 32 and 32 maps (4x4 pixels in the end, 512 features); 450 units between them and 64 latents.
    count = lambda network: sum(parameter.numel() for parameter in network.parameters())  # noqa: E731
    encoder = lambda *hidden: ConvEncoder((1, 28, 28), (128,), channels=(16, 32, 32), dense_dims=hidden)  # noqa: E731
    decoder = lambda *hidden: ConvDecoder((64,), (1, 28, 28), channels=(32, 32, 16), dense_dims=hidden)  # noqa: E731
    assert count(encoder(450)) - count(encoder()) == 512 * 450 + 450 + 450 * 128 - 512 * 128
    assert count(decoder(450)) - count(decoder()) == 64 * 450 + 450 + 450 * 512 - 64 * 512
    assert decoder(450)(encoder(450)(torch.rand(2, 1, 28, 28))[:, :64]).shape == (2, 1, 28, 28)
    # Without a non-linearity between them they would be one linear layer.
    assert [type(layer) for layer in encoder(450).output] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.Unflatten]
    assert [type(layer) for layer in decoder(450).layers][:4] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]


def test_weights_of_convolutions_keep_the_faster_layout_in_a_checkpoint() -> None:
    first, second = (ConvEncoder((3, 8, 8), (2,), channels=(4, 8)) for _ in range(2))
    # As a checkpoint of older weights would have them, in the layout that tensors have by default.
    second.load_state_dict({name: values.contiguous() for name, values in first.state_dict().items()})
    for layer in second.convolutions:
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(second(images), first(images))


def test_too_small_an_image_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="too small for 6 strided convolutions; give at most 4"):
        ConvEncoder((1, 8, 8), (2,), channels=(4,) * 6)
    with pytest.raises(ValueError, match="too small for 4 strided convolutions; give at most 3"):
        ConvEncoder((1, 8, 8), (2,), channels=(4,) * 4, kernel_size=4)
    with pytest.raises(ValueError, match="use MLP"):
        ConvEncoder((64,), (2,))


def test_specification_leaves_the_sizes_out() -> None:
    network = MLP((1, 8, 8), (4,), hidden_dims=[3], activation="relu")
    assert network.specification(skip=network.sizes) == {
        "class_path": "lit_gen.networks.mlp.MLP",
        "init_args": {"hidden_dims": [3], "activation": "relu", "batch_norm": False},
    }


@pytest.mark.parametrize(
    "likelihood",
    [
        BernoulliLikelihood,
        DiscretizedLogisticLikelihood,
        GaussianLikelihood,
        lambda shape: GaussianLikelihood(shape, 0.1),
    ],
)
def test_likelihoods_are_distributions_over_images(likelihood: type[Likelihood]) -> None:
    head = likelihood((3, 5, 4))
    parameters = torch.randn(2, *head.parameter_shape, requires_grad=True)
    distribution = head(parameters)
    assert (distribution.batch_shape, distribution.event_shape) == ((2,), (3, 5, 4))
    assert 0 <= distribution.mean.min() <= distribution.mean.max() <= 1
    images = torch.randint(0, 256, (2, 3, 5, 4)) / 255 if not head.needs_binary else torch.ones(2, 3, 5, 4)
    distribution.log_prob(images).sum().backward()
    assert parameters.grad.isfinite().all()
    assert parameters.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_of_the_decoder_stays_out_of_the_likelihood(dtype: torch.dtype) -> None:
    head = DiscretizedLogisticLikelihood((1, 28, 28))
    images = torch.randint(0, 256, (4, 1, 28, 28)) / 255
    parameters = torch.cat([torch.logit(images.clamp(0.01, 0.99)), torch.full((4, 1, 28, 28), -4.0)], dim=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        low = head(parameters).log_prob(images)
    high = head(parameters.double()).log_prob(images.double())
    torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=0)


def test_a_factory_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="gave a Linear; make it a subclass of"):
        build(lambda i, o: torch.nn.Linear(2, 3), (2,), (3,))


def test_bernoulli_log_prob_is_exact_far_from_zero() -> None:
    # With probabilities instead of logits the gradient vanishes: -9e-6 where the truth is -1.
    logits = torch.full((1, 1, 1, 1), -30.0, requires_grad=True)
    loss = -BernoulliLikelihood((1, 1, 1))(logits).log_prob(torch.ones(1, 1, 1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(30.0)
    assert logits.grad.item() == pytest.approx(-1.0)


def test_non_positive_deviations_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        GaussianLikelihood((1, 2, 2), std=0.0)
