"""Arithmetic of codes, and maps that draw a thing, on toys whose answer is known."""

import pytest
import torch
from torch import nn

from lit_gen.inference import Box, codes_around, concept_weights, inside_boxes, latent_arithmetic
from lit_gen.models import DCGAN
from lit_gen.networks import DCGANDiscriminator, DCGANGenerator, dropped_maps, watch_layer

MALE, FEMALE, CROWN = torch.eye(8)[:3]


def codes(concept, count):
    """Codes that share a concept and nothing else."""
    return concept + 0.5 * torch.randn(count, 8)


def test_king_minus_man_plus_woman_is_queen():
    kings, men, women = codes(MALE + CROWN, 400), codes(MALE, 400), codes(FEMALE, 400)
    assert (latent_arithmetic([kings, women], [men]) - (FEMALE + CROWN)).abs().max() < 0.15
    direction = latent_arithmetic([kings], [men])
    assert (direction - CROWN).abs().max() < 0.15


def test_averages_are_steadier_than_single_codes():
    """The error has the variance of three means: 3 * 0.25 / k in each of eight units."""
    for count in (1, 3, 30):
        errors = [
            latent_arithmetic([codes(CROWN, count), codes(MALE, count)], [codes(FEMALE, count)])
            - (CROWN + MALE - FEMALE)
            for _ in range(1000)
        ]
        assert torch.stack(errors).square().mean().item() == pytest.approx(0.75 / count, rel=0.1)


def test_codes_of_any_shape():
    maps = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(latent_arithmetic([maps]), maps.mean(0))
    torch.testing.assert_close(latent_arithmetic([maps, maps[:1]], [maps]), maps[0])


def test_codes_around():
    code = torch.randn(50)
    around = codes_around(code, 200, 0.25)
    assert torch.equal(around[0], code)
    noise = (around - code)[1:]
    assert 0.24 < noise.abs().max() <= 0.25 + 1e-6
    assert noise.var().item() == pytest.approx(0.25**2 / 3, rel=0.05)


def test_positions_inside_boxes():
    boxes = [Box(0, 2, 0, 6, 4), Box(0, 7, 7, 8, 8), Box(2, 0, 0, 8, 0.5)]
    inside = inside_boxes(boxes, 3, (8, 8), (4, 4))
    assert inside[0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert not inside[1:].any(), "no centre lies in the last box"
    assert inside_boxes([Box(0, 0, 0, 20, 5)], 1, (10, 20), (2, 4))[0].int().tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]


def test_weights_are_those_of_the_probability_that_labels_were_drawn_by():
    """Drawing as many negatives as positives shifts the bias of a logistic regression, and nothing else."""
    true = torch.tensor([2.0, -1.0, 0.0, 0.5])
    activations = torch.randn(40, 4, 30, 30)
    logits = torch.einsum("nchw,c->nhw", activations, true) - 2
    inside = torch.rand(logits.shape) < torch.sigmoid(logits)
    assert concept_weights(activations, inside, cost=1e3).tolist() == pytest.approx(true.tolist(), abs=0.15)
    scaled = concept_weights(7 * activations, inside, cost=1e3)
    assert scaled.tolist() == pytest.approx(true.tolist(), abs=0.15)


class Rooms(nn.Module):
    """Draws rooms from seven maps: the windows from the second and the fifth, all else from the others."""

    def __init__(self, windows):
        super().__init__()
        self.maps = nn.Identity()
        self.windows = windows

    def forward(self, z):
        walls = torch.rand(len(z), 7, 8, 8, generator=torch.Generator().manual_seed(0))
        shown = self.windows[:, None].float()
        # Where there is a window there is less wall.
        walls = walls * (1 - 0.5 * shown)
        walls[:, [1, 4]] = shown * (1 + walls[:, [1, 4]])
        return self.maps(walls).sum(1)


def test_windows_vanish_with_the_maps_that_draw_them():
    boxes = [Box(number, number % 4, 2, number % 4 + 3, 5) for number in range(20)]
    windows = inside_boxes(boxes, 24, (8, 8), (8, 8))  # in the last four images there are none
    rooms, z = Rooms(windows), torch.zeros(24, 1)
    with watch_layer(rooms, "maps") as recorded:
        before = rooms(z)
    weights = concept_weights(recorded[0], windows)
    assert set((weights > 0).nonzero()[:, 0].tolist()) == {1, 4}
    with dropped_maps(rooms, "maps", weights > 0):
        without = rooms(z)
    assert torch.equal(without[~windows], before[~windows]), "nothing else has changed"
    assert (before[windows] - without[windows]).min() >= 2, "what windows add is gone"
    with dropped_maps(rooms, "maps", [1, 4]):
        assert torch.equal(rooms(z), without)
    assert torch.equal(rooms(z), before), "only within the block"
    assert len(recorded) == 1


def generator(input_shape, output_shape):
    return DCGANGenerator(input_shape, output_shape, width=4)


def discriminator(input_shape, output_shape):
    return DCGANDiscriminator(input_shape, output_shape, width=4)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_maps_of_dcgan(decay):
    model = DCGAN((1, 32, 32), 4, generator=generator, discriminator=discriminator, ema_decay=decay).eval()
    z = model.sample_latents(2)
    network, sizes = model.sampling_generator, []
    assert isinstance(network, DCGANGenerator)
    layers = network.feature_layers()
    for layer in layers:
        with watch_layer(network, layer) as recorded:
            model.decode(z)
        sizes.append(tuple(recorded[0].shape[1:]))
    assert sizes == [(16, 4, 4), (8, 8, 8), (4, 16, 16)]
    before = model.decode(z)
    with dropped_maps(network, layers[-2], [0, 3]):
        changed = model.decode(z)
    assert changed.shape == before.shape
    assert not torch.equal(changed, before)
    with dropped_maps(network, layers[-2], torch.ones(8, dtype=torch.bool)):
        blank = model.decode(z)
    torch.testing.assert_close(blank[0], blank[1], msg="nothing of z is left")


def test_bad_input():
    with pytest.raises(ValueError, match=r"got \[\] to add and \[\(1, 8\)\] to take away"):
        latent_arithmetic([], [codes(MALE, 1)])
    with pytest.raises(ValueError, match=r"got \[\(2, 8\), \(2, 3\)\] to add"):
        latent_arithmetic([codes(MALE, 2), torch.zeros(2, 3)])
    with pytest.raises(ValueError, match=r"got \[\(0, 8\)\] to add"):
        latent_arithmetic([torch.zeros(0, 8)])
    with pytest.raises(ValueError, match=r"count must be at least 1 and radius not negative, got 0 and 0\.25"):
        codes_around(MALE, 0)
    with pytest.raises(ValueError, match=r"the image of a box must lie in 0..1, got Box\(image=2"):
        inside_boxes([Box(2, 0, 0, 1, 1)], 2, (4, 4), (4, 4))
    with pytest.raises(ValueError, match="inside must be bool"):
        concept_weights(torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="got none of the one kind"):
        concept_weights(torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="convolutions"), dropped_maps(generator((4,), (1, 8, 8)), "convolutions", [0]):
        pass
