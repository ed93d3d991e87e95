"""The machine over images and labels against enumeration of both."""

import itertools
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from scipy import stats
from torch import Tensor

from lit_gen.callbacks import LogPartition
from lit_gen.data import Digits
from lit_gen.inference import ais, published_temperatures
from lit_gen.models import ClassRBM, PersistentContrastiveDivergence
from lit_gen.models.annealed_rbm import AnnealedRBM
from lit_gen.networks import BernoulliVisible, CategoricalVisible
from tests.toy_rbm import mean_and_error

CLASSES = 3
LEVELS = {"binary": 2, "grey": 3}
LAYERS: dict[str, Any] = {"binary": BernoulliVisible, "grey": lambda shape: CategoricalVisible(shape, levels=3)}


def toy(kind: str) -> ClassRBM:
    torch.manual_seed(0)
    model = ClassRBM((1, 2, 2), CLASSES, 5, LAYERS[kind], initial_weight_std=1.5, sample_steps=30).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def all_images(kind: str) -> Tensor:
    grey = torch.linspace(0, 1, LEVELS[kind], dtype=torch.float64).tolist()
    return torch.tensor(list(itertools.product(grey, repeat=4)), dtype=torch.float64).unflatten(1, (1, 2, 2))


def joint_log_probabilities(model: ClassRBM, kind: str) -> Tensor:
    """log p(image, class), ``(images, CLASSES)``, from free energies of pairs, one pair at a time."""
    images = all_images(kind)
    pairs = [model.free_energy(images, torch.full((len(images),), number)) for number in range(CLASSES)]
    negative = -torch.stack(pairs, 1).detach()
    return negative - negative.flatten().logsumexp(0)


@pytest.mark.parametrize("kind", LAYERS)
def test_probabilities_of_images_classes_and_pairs(kind: str) -> None:
    model, images = toy(kind), all_images(kind)
    pairs = joint_log_probabilities(model, kind)
    log_z = model.exact_log_partition()
    torch.testing.assert_close(-model.free_energy(images, torch.full((len(images),), 1)) - log_z, pairs[:, 1])
    torch.testing.assert_close(-model.free_energy(images) - log_z, pairs.logsumexp(1))
    torch.testing.assert_close(model.class_log_probs(images), pairs.log_softmax(1))
    hidden = model.machine.hidden_mean
    units = [model.visible_units(images, torch.full((len(images),), number)) for number in range(CLASSES)]
    expected = sum(pairs.softmax(1)[:, [number]] * hidden(units[number]) for number in range(CLASSES))
    torch.testing.assert_close(model.features(images), expected)
    assert model.filters().shape == (5, 1, 2, 2)


@pytest.mark.parametrize("kind", LAYERS)
def test_annealing_and_gibbs_sampling(kind: str) -> None:
    model = toy(kind)
    weights = ais(AnnealedRBM(model.machine), published_temperatures(30), 4000).log_weights
    ratio, error = mean_and_error(torch.exp(weights - model.exact_log_partition()))
    assert abs(ratio - 1) < 4 * error < 0.2
    states = model.gibbs(model.noise(20_000), 40)[0]
    pixels, labels = model.units.split(states)
    number = (model.units.image.decode(pixels) * (LEVELS[kind] - 1)).round() @ torch.tensor(
        [float(LEVELS[kind] ** place) for place in (3, 2, 1, 0)], dtype=torch.float64
    )
    observed = torch.bincount(number.long() * CLASSES + labels.argmax(1), minlength=LEVELS[kind] ** 4 * CLASSES)
    expected = joint_log_probabilities(model, kind).exp().flatten() * 20_000
    assert stats.chisquare(observed.numpy(), expected.numpy() / expected.sum().item() * 20_000).pvalue > 1e-3


def test_samples_of_a_class() -> None:
    model = toy("binary")
    torch.manual_seed(1)
    given = joint_log_probabilities(model, "binary").softmax(0)
    for number in range(CLASSES):
        samples = model.sample(20_000, torch.full((20_000,), number))
        # P(v given h) averages to the mean of v.
        expected = (given[:, number, None] * all_images("binary").flatten(1)).sum(0)
        torch.testing.assert_close(samples.flatten(1).mean(0).double(), expected, rtol=0, atol=0.015)
    differences = (given.T @ all_images("binary").flatten(1)).std(0)
    assert differences.max() > 5 * 0.015, "classes so alike would prove nothing"


def test_labels_come_from_the_data_or_the_user() -> None:
    model = toy("binary")
    model.machine.data_mean[-CLASSES:] = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    drawn = model.sample_condition(2000)
    assert torch.bincount(drawn, minlength=3)[:2].div(2000).tolist() == pytest.approx([0.7, 0.3], abs=0.04)
    assert drawn.max() == 1
    assert model.make_condition({"class": 2}, 4).tolist() == [2] * 4
    with pytest.raises(ValueError, match=r"class must lie in 0\.\.2, got 3"):
        model.make_condition({"class": 3}, 4)
    with pytest.raises(ValueError, match=r"class numbers of shape \(B,\), got tensor"):
        model.target_condition(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="needs labels of at least 2 classes, the data has 0"):
        ClassRBM((1, 2, 2), 0)
    # Without labels they come from p(class given image).
    images = all_images("binary")[5:6].expand(20_000, -1, -1, -1)
    _, labels = model.units.split(model.data_state(images)[0])
    torch.testing.assert_close(labels.mean(0), model.class_log_probs(images[:1]).exp()[0], rtol=0, atol=0.015)


def test_it_learns_to_classify(tmp_path: Path) -> None:
    source = Digits(batch_size=50, binarization="threshold", subset=500)
    model = ClassRBM(
        source.image_shape,
        source.num_classes,
        40,
        negative_phase=lambda: PersistentContrastiveDivergence(2, 50),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.5),
        sample_steps=3,
    )
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    run = pl.Trainer(
        max_epochs=40,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=40,
        **options,
    )
    run.fit(model, source)
    accuracy = run.callback_metrics["val/accuracy"].item()
    assert accuracy > 0.75
    images = torch.cat([batch for batch, _ in source.val_dataloader()])
    labels = torch.cat([target for _, target in source.val_dataloader()])
    expected = (model.class_log_probs(images).argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(expected, abs=1e-6)
    # The log-likelihood of a test is that of the image, whatever its label.
    run = pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=[LogPartition(4, 5, 2)],
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        **options,
    )
    values = run.test(model, source, verbose=False)[0]
    images = torch.cat([batch for batch, _ in source.test_dataloader()])
    measured = values["test/log_likelihood_ais"] + values["test/log_partition_ais"]
    assert measured == pytest.approx(-model.free_energy(images).mean().item(), rel=1e-5)
    _, frequencies = model.units.split(model.machine.data_mean)
    assert frequencies.sum().item() == pytest.approx(1, abs=1e-5)
