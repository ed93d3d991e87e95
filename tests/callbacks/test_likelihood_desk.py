"""The desk on models whose log p(x) is known in closed form, interrupted, and where it cannot measure."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.utils.data import DataLoader

from lit_gen.callbacks import (
    ActiveUnits,
    Annealing,
    ImportanceSampling,
    LikelihoodDesk,
    ParzenWindow,
    PyramidParzen,
    evaluation,
)
from lit_gen.metrics import Receipt
from lit_gen.models import DRAW, LAPGAN, RBM, ClassLAPGAN, FlowVAE
from lit_gen.models.base import ClassConditional, Decodes, GenerativeModel
from lit_gen.networks import MLP, FullReader, FullWriter, GaussianLikelihood, PlanarFlow, Shape
from tests.callbacks.tiny import SHAPE, data, small, trainer, vae
from tests.linear_gaussian import LOG_P, OFFSET, VARIANCE, WEIGHTS, LinearGaussianVAE, X
from tests.models.test_iwae import two_layers
from tests.toy_rbm import mean_and_error

MARGINAL = MultivariateNormal(OFFSET, WEIGHTS @ WEIGHTS.T + VARIANCE * torch.eye(4).double())


class Generator(GenerativeModel, Decodes):
    """Images without a likelihood, as an adversarial network gives: linear in z, so that noise makes them Gaussian."""

    latent_shape = (2,)

    def __init__(self) -> None:
        super().__init__((1, 2, 2))
        self.weight = torch.nn.Parameter(WEIGHTS.clone())

    @property
    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution | Tensor:
        return (z @ self.weight.T + OFFSET).unflatten(-1, (1, 2, 2))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/seen", float(len(batch[0])))


class ClassModel(Generator, ClassConditional):
    """p(z given class) lies about +3 or -3, and the class adds 5 to its images: a likelihood of variance 1/2."""

    num_classes = 2

    def sample_condition(self, num_samples: int) -> Tensor:
        return torch.arange(num_samples) % 2

    def conditional_prior(self, condition: Any = None) -> Distribution:
        mean = (6.0 * condition - 3.0).double()[:, None].expand(-1, 2)
        return Independent(Normal(mean, torch.ones_like(mean)), 1)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution | Tensor:
        mean = super().decode(z)
        assert isinstance(mean, Tensor)
        return Independent(Normal(mean + 5.0 * condition.view(-1, 1, 1, 1), VARIANCE**0.5), 3)


def coarse(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[4])


def loader(images: Tensor, targets: Tensor | None = None, batch_size: int = 10) -> DataLoader[Any]:
    targets = torch.zeros(len(images), dtype=torch.long) if targets is None else targets
    return DataLoader(list(zip(images, targets)), batch_size=batch_size)  # type: ignore[arg-type]


def measure(
    folder: Path, model: Any, source: Any, *estimators: Any, inference_mode: bool = False, **options: Any
) -> Any:
    run = trainer(folder, LikelihoodDesk(estimators, **options), inference_mode=inference_mode)
    torch.manual_seed(0)  # for the model's own test step
    if isinstance(source, DataLoader):
        return run.test(model, source, verbose=False)[0]
    return run.test(model, datamodule=source, verbose=False)[0]


def receipts(folder: Path) -> dict[str, Receipt]:
    content = json.loads((folder / "receipts" / "test_likelihood.json").read_text())
    return {entry["metric"]: Receipt.from_dict(entry) for entry in content["scores"]}


def exact_of_simulated(estimator: Annealing, model: Any, log_prob: Any) -> Tensor:
    """log p of the images that the desk simulates: the same noise draws them again."""
    with evaluation(model, 0):
        work = estimator.simulated(model)
    assert work is not None
    return log_prob(work.images.flatten(1), work.condition)


@pytest.mark.parametrize("inference_mode", [False, True])
def test_truth_lies_within_the_brackets(inference_mode: bool, tmp_path: Path) -> None:
    model = LinearGaussianVAE()
    annealing = Annealing(num_simulated=300, num_chains=1, num_temperatures=10, num_leapfrogs=3)
    estimators = (ImportanceSampling(200), annealing, ActiveUnits())
    result = measure(
        tmp_path, model, loader(X.expand(60, 1, 2, 2), batch_size=60), *estimators, inference_mode=inference_mode
    )
    found = receipts(tmp_path)
    for name in ("log_likelihood_iw200", "log_likelihood_ais"):
        error = found[name].std
        assert error is not None
        assert LOG_P - 1 < result[f"test/{name}"] < LOG_P + 4 * error
        assert result[f"test/{name}"] == pytest.approx(found[name].value, abs=1e-5)
    assert result["test/log_likelihood_iw200"] == pytest.approx(LOG_P, abs=0.02)
    exact = exact_of_simulated(annealing, model, lambda x, _: MARGINAL.log_prob(x)).mean().item()
    low, high = (result[f"test/log_likelihood_{name}_simulated"] for name in ("ais", "reverse_ais"))
    assert low < exact - 0.05 < exact + 0.05 < high
    assert result["test/bdmc_gap"] == pytest.approx(high - low, abs=1e-4)
    assert result["test/active_units"] == 0, "its encoder does not look at the image"
    assert (found["log_likelihood_ais"].num_real, found["bdmc_gap"].num_generated) == (60, 300)
    assert result["test/bits_per_dim_ais"] == pytest.approx(-result["test/log_likelihood_ais"] / 4 / math.log(2))


class Interrupted(Exception):
    """What stops a run."""


class Stopping(Annealing):
    """Stops after so many parts."""

    def __init__(self, parts: int, **options: Any) -> None:
        super().__init__(**options)
        self._parts, self._measured = parts, 0

    def measure(self, *arguments: Any) -> Tensor:
        if self._measured == self._parts:
            raise Interrupted
        self._measured += 1
        return super().measure(*arguments)


def test_an_interrupted_desk_goes_on_where_it_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, options = LinearGaussianVAE(), {"num_chains": 2, "num_temperatures": 3, "num_leapfrogs": 1}
    images = MARGINAL.sample(torch.Size([13])).view(-1, 1, 2, 2)

    def run(folder: str, parts: int, max_rows: int = 8) -> Any:
        estimator = Stopping(parts, num_simulated=6, **options)
        return measure(tmp_path / folder, model, loader(images), estimator, max_rows=max_rows), estimator._measured

    # 6 simulated images, then batches of 10 and 3, four at a time.
    whole, parts = run("whole", 100)
    assert parts == 2 + 3 + 1
    with pytest.raises(Interrupted):
        run("parts", 4)
    again, parts = run("parts", 100)
    assert parts == 6 - 4
    assert again == whole
    with caplog.at_level("INFO"):
        assert run("parts", 0)[0] == whole
    assert "19 results are of an earlier run" in caplog.text
    # Another memory bound changes the parts, not what was measured; other weights and options begin anew.
    assert run("parts", 0, max_rows=100)[0] == whole
    options["num_temperatures"] = 4
    with pytest.raises(Interrupted):
        run("parts", 0)
    options["num_temperatures"] = 3
    with torch.no_grad():
        model.decoder.layers[0].bias.add_(1)
    with pytest.raises(Interrupted):
        run("parts", 0)


def test_more_images_go_on_from_fewer(tmp_path: Path) -> None:
    model, images = LinearGaussianVAE(), MARGINAL.sample(torch.Size([20])).view(-1, 1, 2, 2)
    options = {"num_chains": 2, "num_temperatures": 3, "num_leapfrogs": 1, "num_simulated": 0}
    few = measure(tmp_path, model, loader(images), Stopping(3, num_images=12, **options), max_rows=12)
    with pytest.raises(Interrupted):
        measure(tmp_path, model, loader(images), Stopping(0, num_images=20, **options), max_rows=12)
    assert measure(tmp_path, model, loader(images), Stopping(0, num_images=12, **options), max_rows=12) == few
    assert receipts(tmp_path)["log_likelihood_ais"].num_real == 12


@pytest.mark.parametrize("max_rows", [8, 100, 2500])
def test_memory_bound_changes_nothing_but_the_parts(max_rows: int, tmp_path: Path) -> None:
    rows: list[int] = []

    class Watched(LinearGaussianVAE):
        def decode(self, z: Tensor, condition: Any = None) -> Distribution:
            rows.append(len(z))
            return super().decode(z, condition)

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("test/seen", 1.0)

    estimators = [ImportanceSampling(400), Annealing(3, 0, num_chains=8, num_temperatures=20, num_leapfrogs=2)]
    result = measure(tmp_path, Watched(), loader(X.expand(5, 1, 2, 2)), *estimators, max_rows=max_rows)
    assert max(rows) <= max_rows
    assert max(rows) > max_rows / 2
    assert result["test/log_likelihood_iw400"] == pytest.approx(LOG_P, abs=0.03)
    assert result["test/log_likelihood_ais"] == pytest.approx(LOG_P, abs=0.4)


def test_two_layers_are_measured_as_they_are_sampled(tmp_path: Path) -> None:
    """The density of a linear hierarchy, of which the noise between the layers is a part."""
    model, at_x = two_layers()
    assert model.upper_decoder is not None
    (layer,) = (part for part in model.upper_decoder[0].modules() if isinstance(part, torch.nn.Linear))
    between, (shift, log_std) = layer.weight[:2].detach(), layer.bias.detach().chunk(2)
    first = between @ between.T + torch.diag((2 * log_std).exp())
    marginal = MultivariateNormal(OFFSET + WEIGHTS @ shift, WEIGHTS @ first @ WEIGHTS.T + VARIANCE * torch.eye(4))
    torch.testing.assert_close(marginal.log_prob(X.flatten()), at_x)
    annealing = Annealing(20, 200, num_chains=4, num_temperatures=10, num_leapfrogs=3)
    result = measure(tmp_path, model, loader(X.expand(20, 1, 2, 2), batch_size=20), annealing, ActiveUnits())
    truth = exact_of_simulated(annealing, model, lambda x, _: marginal.log_prob(x)).mean().item()
    low, high = (result[f"test/log_likelihood_{name}_simulated"] for name in ("ais", "reverse_ais"))
    assert low < truth < high
    assert high - low < 1
    assert result["test/log_likelihood_ais"] == pytest.approx(at_x.item(), abs=0.2)
    # This encoder looks at no image.
    assert [result[f"test/active_units{layer}"] for layer in ("", "_1", "_2")] == [0, 0, 0]


def test_units_of_each_step_of_draw(tmp_path: Path) -> None:
    """Of two units in two steps the second looks at nothing; what a step owes to earlier draws is no activity."""
    torch.manual_seed(0)
    model = DRAW((1, 2, 2), steps=2, latent_dim=2, hidden_dim=8, reader=FullReader, writer=FullWriter)
    (head,) = (part for part in model.posterior_head.modules() if isinstance(part, torch.nn.Linear))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        head.weight[1], head.bias[1] = 0, 0.3  # the mean of the second unit
    images = torch.randint(2, (60, 1, 2, 2)).float()
    result = measure(tmp_path, model, loader(images), ActiveUnits())
    assert [result[f"test/active_units{step}"] for step in ("", "_1", "_2")] == [2, 1, 1]
    assert model.posterior_draws(images[:1], 50)[1].std(0)[0, 0] > 0.1
    result = measure(tmp_path / "alike", model, loader(images[:1].expand(60, 1, 2, 2)), ActiveUnits())
    assert [result[f"test/active_units{step}"] for step in ("", "_1", "_2")] == [0, 0, 0]


def test_conditional_models_get_the_conditions_of_their_images(tmp_path: Path) -> None:
    model, classes = ClassModel(), torch.arange(12) % 2
    covariance = WEIGHTS @ WEIGHTS.T + VARIANCE * torch.eye(4).double()

    def exact(images: Tensor, condition: Tensor) -> Tensor:
        z = (6.0 * condition - 3.0).double()[:, None].expand(-1, 2)
        mean = z @ WEIGHTS.T + OFFSET + 5.0 * condition[:, None]
        return MultivariateNormal(mean, covariance).log_prob(images)

    torch.manual_seed(0)
    with torch.no_grad():
        z = model.conditional_prior(classes).sample()
        images = model.decode(z, classes).sample()  # type: ignore[union-attr]
    annealing = Annealing(num_simulated=12, num_temperatures=40, num_leapfrogs=3)
    result = measure(tmp_path, model, loader(images, classes, 8), annealing)
    truth = exact(images.flatten(1), classes).mean().item()
    assert result["test/log_likelihood_ais"] == pytest.approx(truth, abs=0.15)
    truth = exact_of_simulated(annealing, model, exact).mean().item()
    for name in ("ais", "reverse_ais"):
        assert result[f"test/log_likelihood_{name}_simulated"] == pytest.approx(truth, abs=0.3)


def test_noise_gives_a_generator_a_density(tmp_path: Path) -> None:
    """N(offset, W W' + v I): annealing brackets it, and Parzen windows of width sqrt(v) converge to it."""
    model, variance = Generator(), 0.25
    marginal = MultivariateNormal(OFFSET, WEIGHTS @ WEIGHTS.T + variance * torch.eye(4).double())
    torch.manual_seed(0)
    images = marginal.sample(torch.Size([30])).view(-1, 1, 2, 2)
    annealing = Annealing(num_simulated=200, num_temperatures=30, num_leapfrogs=3, noise_variance=variance)
    parzen = ParzenWindow(20_000, sigmas=[variance**0.5])
    result = measure(tmp_path, model, loader(images), annealing, parzen, max_rows=4000)
    truth = marginal.log_prob(images.flatten(1))
    assert result["test/log_likelihood_parzen"] == pytest.approx(truth.mean().item(), abs=0.1)
    assert result["test/log_likelihood_ais"] == pytest.approx(truth.mean().item(), abs=0.1)
    exact = exact_of_simulated(annealing, model, lambda x, _: marginal.log_prob(x)).mean().item()
    gap = result["test/bdmc_gap"]
    assert 0 < gap < 0.5
    low, high = (result[f"test/log_likelihood_{name}_simulated"] for name in ("ais", "reverse_ais"))
    assert low - 0.1 * gap < exact < high + 0.1 * gap
    # A density of four pixels, in bits per dimension of 256 grey levels.
    bits = 8 - result["test/log_likelihood_ais"] / 4 / math.log(2)
    assert result["test/bits_per_dim_ais"] == pytest.approx(bits, abs=1e-5)
    assert "density of pixels" in str(receipts(tmp_path)["log_likelihood_ais"].settings["pixels"])


def test_simulated_noise_has_the_variance_that_was_asked_for() -> None:
    model, annealing = Generator(), Annealing(num_simulated=20_000, noise_variance=0.25)
    trainer(Path(), LikelihoodDesk([annealing]))
    torch.manual_seed(0)
    with torch.no_grad():
        work = annealing.simulated(model)
        assert work is not None
        noise = work.images - model.decode(work.latents)  # type: ignore[arg-type]
    mean, error = mean_and_error(noise.square().flatten())
    assert mean == pytest.approx(0.25, abs=4 * error)


def test_images_are_simulated_in_the_precision_that_they_are_measured_in() -> None:
    torch.manual_seed(0)
    model, annealing = vae(likelihood=GaussianLikelihood), Annealing(num_simulated=5)
    found = []
    for enabled in (True, False):
        torch.manual_seed(1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            work = annealing.simulated(model)
        assert work is not None
        found.append(work.images)
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["vae", "flow"])
def test_everything_is_measured_of_a_neural_model(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    flow = FlowVAE(SHAPE, 2, lambda dim: PlanarFlow(dim, length=2), small, small, annealing_steps=0)
    model = vae() if kind == "vae" else flow
    estimators = [ImportanceSampling(50), Annealing(5, 5, 4, 5, 2), ParzenWindow(30), ActiveUnits()]
    result = measure(tmp_path, model, data(), *estimators)
    names = {"log_likelihood_iw50", "log_likelihood_ais", "log_likelihood_parzen", "parzen_sigma", "active_units"}
    assert {f"test/{name}" for name in names} <= result.keys()
    assert all(math.isfinite(value) for value in result.values())
    assert 0 <= result["test/active_units"] <= 2
    assert 0.1 <= result["test/parzen_sigma"] <= 1.0001
    found = receipts(tmp_path)
    assert found["log_likelihood_parzen"].split == f"{data().protocol} [test]"
    assert found["log_likelihood_parzen"].num_generated == 30
    assert measure(tmp_path, model, data(), *estimators) == pytest.approx(result)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_pyramid_is_measured_level_by_level(classes: int, tmp_path: Path) -> None:
    """Generators without weights ignore their noise, so that another estimate of the same images is the same."""
    small: Any = {"base_generator": coarse, "base_discriminator": coarse}
    model = ClassLAPGAN(SHAPE, classes, **small) if classes else LAPGAN(SHAPE, **small)
    for parameter in model.generators.parameters():
        torch.nn.init.zeros_(parameter)
    source = data(binarization="none")
    sigmas = [0.01, 0.1, 0.2, 0.3, 0.4, 5.0]
    result = measure(tmp_path, model, source, PyramidParzen(5, 3, num_validation=15, sigmas=sigmas), max_rows=6)
    source.setup()
    (test, labels), (held_out, others) = (
        [torch.cat(parts) for parts in zip(*loader, strict=True)]
        for loader in (source.test_dataloader(), source.val_dataloader())
    )
    conditions = (labels, others[:15]) if classes else (None, None)
    expected = model.eval().log_likelihood_parzen(test, held_out[:15], *conditions, 5, 3, sigmas)
    name = "test/log_likelihood_pyramid_parzen"
    assert result[name] == pytest.approx(expected.log_likelihood, rel=1e-5)
    assert result[f"{name}_level0"] + result[f"{name}_level1"] == pytest.approx(result[name], rel=1e-5)
    assert result[f"{name}_level1"] == pytest.approx(expected.levels[1].log_likelihood, rel=1e-5)
    chosen = [result[f"test/pyramid_parzen_sigma_level{level}"] for level in (0, 1)]
    assert chosen == pytest.approx([level.sigma for level in expected.levels])
    assert not {0.01, 5.0} & set(chosen)
    receipt = receipts(tmp_path)["log_likelihood_pyramid_parzen"]
    assert (receipt.num_real, receipt.num_generated) == (20, 5)
    assert receipt.std == pytest.approx(expected.standard_error, rel=1e-5)
    fixed = model.log_likelihood_parzen(test, None, labels if classes else None, None, 5, 3, level_sigmas=chosen)
    assert fixed.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-5)
    alone = measure(tmp_path / "alone", model, source, PyramidParzen(5, 3, sigmas=[0.3]), max_rows=6)
    single = model.log_likelihood_parzen(test, None, labels if classes else None, None, 5, 3, sigmas=[0.3])
    assert alone[name] == pytest.approx(single.log_likelihood, rel=1e-5)
    with pytest.raises(ValueError, match=r"one for each of 2 levels, got \[0.3\]"):
        model.log_likelihood_parzen(test, None, level_sigmas=[0.3])


def test_a_sigma_at_the_end_of_the_grid_is_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    measure(tmp_path, vae(), data(), ParzenWindow(30, 10, sigmas=[0.01, 0.4, 9.0]))
    assert not [one for one in recwarn if "ParzenWindow" in str(one.message)]
    for sigmas, end in (([5.0, 9.0], "least of its sigmas, 5"), ([0.01, 0.02], "largest of its sigmas, 0.02")):
        measure(tmp_path, vae(), data(), ParzenWindow(30, 10, sigmas=sigmas))
        assert [one for one in recwarn if f"ParzenWindow took the {end}" in str(one.message)]


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        result = measure(tmp_path, Generator(), loader(X.expand(4, 1, 2, 2)), *LikelihoodDesk().estimators)
    (line,) = (record.getMessage() for record in caplog.records if "LikelihoodDesk" in record.getMessage())
    for reason in (
        "LikelihoodDesk is idle: no ImportanceSampling: Generator has no bound on log p(x)",
        "no Annealing: Generator decodes images without a likelihood: give noise_variance, 0.025 say",
        "no ParzenWindow: there are no validation images in a data module to choose sigma by",
        "no PyramidParzen: Generator has no levels to be measured one by one",
        "no ActiveUnits: Generator encodes no images",
    ):
        assert reason in line
    assert not any("likelihood" in name for name in result)
    caplog.clear()
    with caplog.at_level("INFO"):
        result = measure(tmp_path, RBM((1, 8, 8), 4), data(), Annealing(), ParzenWindow(20))
    assert "LikelihoodDesk: no Annealing: RBM decodes no latents" in caplog.text
    assert "test/log_likelihood_parzen" in result


def test_a_density_of_grey_levels_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = vae(likelihood=GaussianLikelihood)
    measure(tmp_path, model, data(binarization="none"), ImportanceSampling(5))
    assert "The images lie on grey levels" in caplog.text
    caplog.clear()
    measure(tmp_path, model, data(binarization="none", dequantize=True), ImportanceSampling(5))
    assert "grey levels" not in caplog.text


def test_the_published_windows_stand_on_grey_levels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for options in ({"binarization": "none"}, {"binarization": "threshold"}):
        measure(tmp_path, vae(), data(**options), ParzenWindow(20, 10))
    assert "grey levels" not in caplog.text


def test_another_precision_is_measured_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = vae()
    found = []
    for precision in ("bf16-mixed", "32-true", "bf16-mixed"):
        run = trainer(tmp_path, LikelihoodDesk([ImportanceSampling(50)]), precision=precision)
        (result,) = run.test(model, data(), verbose=False)
        found.append(result["test/log_likelihood_iw50"])
    assert found[0] == found[2] != found[1]


def test_it_rests_during_a_fit(tmp_path: Path) -> None:
    run = trainer(tmp_path, LikelihoodDesk([ImportanceSampling(5)]))
    model = vae()
    run.fit(model, data())
    assert not any("likelihood" in name for name in run.callback_metrics)
    (result,) = run.validate(model, data(), verbose=False)
    assert "val/log_likelihood_iw5" in result
    assert (tmp_path / "receipts" / "val_likelihood.json").is_file()


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"noise_variance=0\.1 is for decoders without a likelihood, and VAE has one"):
        measure(tmp_path, vae(), data(), Annealing(noise_variance=0.1))
    for make, message in (
        (lambda: LikelihoodDesk([]), "at least one, and no two of a kind, got none"),
        (lambda: LikelihoodDesk([ActiveUnits(), ActiveUnits()]), "no two of a kind"),
        (lambda: LikelihoodDesk(max_rows=0), "max_rows must be at least 1, got 0"),
        (lambda: Annealing(noise_variance=0.0), "noise_variance must be positive, got 0.0"),
        (lambda: Annealing(num_simulated=-1), "num_simulated must not be negative, got -1"),
        (lambda: ParzenWindow(sigmas=[]), "sigmas must be positive, at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
