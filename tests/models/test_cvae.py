"""The conditional VAE: its bounds, its priors over latents and classes, and classes by Bayes' rule."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from lit_gen.cli.command import main
from lit_gen.data import Arrays
from lit_gen.models import ConditionalVAE, load_model
from lit_gen.networks import MLP, ConvDecoder, ConvEncoder, Shape

SHAPE: Shape = (1, 4, 4)
Trained = tuple[ConditionalVAE, Path, Arrays]


def narrow(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[8])


def model_of(**arguments: Any) -> ConditionalVAE:
    torch.manual_seed(0)
    return ConditionalVAE(SHAPE, 3, 2, narrow, narrow, **arguments).eval()


def binary(count: int) -> torch.Tensor:
    return (torch.rand(count, *SHAPE) > 0.5).float()


def test_objective_is_the_bound_given_the_class() -> None:
    model, classes = model_of(learned_prior=True), torch.tensor([0, 2, 2, 1, 0])
    assert model.prior_parameters is not None
    torch.nn.init.normal_(model.prior_parameters)
    images = binary(5)
    torch.manual_seed(1)
    terms = model.objective(images, classes)

    torch.manual_seed(1)
    joined = torch.cat([images, model.class_maps[classes]], 1)
    mean, log_variance = model.encoder(joined).chunk(2, 1)
    z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    logits = model.decoder(torch.cat([z, torch.eye(3)[classes]], 1))
    reconstruction = -torch.nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    prior_mean, prior_log_variance = model.prior_parameters[classes].chunk(2, 1)
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(prior_mean, (0.5 * prior_log_variance).exp()), 1)
    torch.testing.assert_close(terms.reconstruction, reconstruction.flatten(1).sum(1))
    torch.testing.assert_close(terms.kl, kl_divergence(posterior, prior))


@pytest.mark.parametrize("learned_prior", [False, True])
def test_probabilities_of_all_images_of_a_class_sum_to_one(learned_prior: bool) -> None:
    torch.manual_seed(0)
    model = ConditionalVAE((1, 1, 2), 2, 1, narrow, narrow, learned_prior=learned_prior).eval()
    if model.prior_parameters is not None:
        torch.nn.init.normal_(model.prior_parameters, std=0.3)
    every = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).view(4, 1, 1, 2)
    for number in range(2):
        bounds = model.lower_bound(every, 40_000, torch.full((4,), number))
        assert bounds.exp().sum().item() == pytest.approx(1.0, abs=0.01)
    assert model.lower_bound(every, 40_000).exp().sum().item() == pytest.approx(1.0, abs=0.01)


def test_the_bound_without_a_class_sums_the_classes_out() -> None:
    model = model_of()
    model.class_counts.copy_(torch.tensor([1.0, 1.0, 6.0]))
    images = binary(4)
    of_classes = [model.lower_bound(images, 4000, torch.full((4,), number)).exp() for number in range(3)]
    expected = (of_classes[0] / 8 + of_classes[1] / 8 + of_classes[2] * 6 / 8).log()
    torch.testing.assert_close(model.lower_bound(images, 4000), expected, atol=0.05, rtol=0)


def test_the_prior_is_the_mixture_of_the_classes() -> None:
    model = model_of(learned_prior=True)
    assert model.prior_parameters is not None
    torch.nn.init.normal_(model.prior_parameters)
    model.class_counts.copy_(torch.tensor([3.0, 1.0, 0.0]))
    z = torch.randn(6, 2)
    each = [model.conditional_prior(torch.full((6,), number)).log_prob(z).exp() for number in range(3)]
    torch.testing.assert_close(model.prior.log_prob(z), (0.75 * each[0] + 0.25 * each[1]).log())


def striped(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of three classes, noise in which the class decides which rows are lit; the third is rare."""
    classes = torch.tensor([0, 0, 1, 1, 1, 2]).repeat(count // 6)
    lit = torch.zeros(3, 4, 4)
    lit[0, 0], lit[1, 1], lit[2, 2:] = 1, 1, 1
    return torch.bernoulli(0.05 + 0.9 * lit[classes])[:, None], classes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("cvae")
    images, classes = striped(600)
    data = Arrays(images[:, 0].bool(), classes, batch_size=32)
    model = ConditionalVAE(SHAPE, 3, 2, narrow, narrow, learned_prior=True)
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=60,
    )
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return model.eval(), folder / "model.ckpt", data


def test_it_classifies_by_its_bounds(trained: Trained) -> None:
    torch.manual_seed(5)
    images, classes = striped(120)
    assert (trained[0].classify(images) == classes).float().mean() > 0.95
    bounds = trained[0].class_bounds(images, 5)
    assert bounds.shape == (120, 3)
    assert bounds.argmax(1).eq(classes).float().mean() > 0.9


def test_samples_are_of_the_class_asked_for(trained: Trained) -> None:
    rows = trained[0].sample(30, trained[0].make_condition({"class": 1}, 30)).mean((0, 1, 3))
    assert rows[1] > 0.75
    assert rows[[0, 2, 3]].max() < 0.3


def test_the_classes_of_the_data_are_counted_and_stored(trained: Trained) -> None:
    loaded = load_model(trained[1])
    assert isinstance(loaded, ConditionalVAE)
    counts = torch.cat([classes for _, classes in trained[2].train_dataloader()]).bincount()
    assert loaded.class_counts.tolist() == counts.tolist()
    torch.testing.assert_close(loaded.class_log_prior.exp(), counts / counts.sum())
    torch.manual_seed(0)
    drawn = loaded.sample_condition(6000).bincount() / 6000
    torch.testing.assert_close(drawn, counts / counts.sum(), atol=0.03, rtol=0)


def test_the_command_line_samples_a_class(trained: Trained, tmp_path: Path) -> None:
    words = ["sample", str(trained[1]), "-n", "2", "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "class"), "--condition", "class=2"]) == 0
    assert main([*words, "-o", str(tmp_path / "none"), "--condition", "class=3"]) == 1


def test_a_uniform_prior_leaves_the_data_alone() -> None:
    model = model_of(class_prior="uniform")
    model.on_train_start()
    torch.testing.assert_close(model.class_log_prior, torch.full((3,), -math.log(3)))


def test_any_network_takes_the_class() -> None:
    model = ConditionalVAE((3, 12, 10), 4, 5, ConvEncoder, ConvDecoder).eval()
    images, classes = torch.rand(4, 3, 12, 10), torch.arange(4)
    assert model.reconstruct(images, classes).shape == images.shape
    same = images[:1].expand(2, -1, -1, -1)
    first, second = model.encode(same, torch.tensor([0, 1])).mean
    assert not torch.allclose(first, second)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="labels of at least 2 classes, the data has 0"):
        ConditionalVAE(SHAPE, 0)
    with pytest.raises(ValueError, match="class_prior must be data or uniform"):
        ConditionalVAE(SHAPE, 3, class_prior="flat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the class of each image"):
        model_of().reconstruct(binary(2))
