"""What the :class:`~lit_gen.callbacks.LikelihoodDesk` measures: each estimator with its options."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.callbacks.estimator import Finding, LikelihoodEstimator, Moments, Work
from lit_gen.callbacks.evaluation import positive
from lit_gen.inference import (
    ACTIVE_VARIANCE,
    Progress,
    activity,
    decoder_log_likelihood,
    parzen_log_likelihood,
    posterior_moments,
    sigmoid_temperatures,
)
from lit_gen.inference.parzen import GRID
from lit_gen.models.base import (
    Conditional,
    Decodes,
    GenerativeModel,
    HasLowerBound,
    InfersLatents,
    repeat_condition,
)


class ImportanceSampling(LikelihoodEstimator):
    """The k-sample bound on log p(x), ``test/log_likelihood_iw<k>`` (Burda et al. 2015, equation 8).

    Too low on average, the less the more samples, and by an amount that it does not tell.

    Args:
        num_samples: k.
        num_images: measure so many images; None: all.
    """

    def __init__(self, num_samples: int = 5000, num_images: int | None = None) -> None:
        self.num_samples = positive("num_samples", num_samples)
        self.num_images = None if num_images is None else positive("num_images", num_images)

    def lacks(self, trainer: pl.Trainer, model: GenerativeModel) -> str | None:
        return None if isinstance(model, HasLowerBound) else f"{type(model).__name__} has no bound on log p(x)"

    def images_at_a_time(self, max_rows: int) -> int:
        # Few, so that many samples of each are drawn at a time: images are encoded once for every such chunk.
        return max(1, max_rows // min(self.num_samples, 100))

    def measure(self, model: Any, work: Work, max_rows: int, progress: Progress) -> Tensor:
        chunk = max(1, max_rows // len(work.images))
        kept, model.max_rows = model.max_rows, max_rows
        try:
            return self._bound(model, work, chunk, progress)
        finally:
            model.max_rows = kept

    def _bound(self, model: Any, work: Work, chunk: int, progress: Progress) -> Tensor:
        total = torch.full((len(work.images),), -torch.inf, dtype=torch.float64)
        for start in progress(range(0, self.num_samples, chunk)):
            size = min(chunk, self.num_samples - start)
            bound = model.lower_bound(work.images, size, work.condition)
            # L_n is the log of the mean of n weights: so many of them count.
            total = torch.logaddexp(total, bound.cpu().double() + math.log(size))
        return total[:, None] - math.log(self.num_samples)

    def conclude(self, moments: Mapping[str, Moments]) -> list[Finding]:
        found = moments["data"]
        name = f"log_likelihood_iw{self.num_samples}"
        return [Finding(name, found.mean.item(), found.standard_error(), found.count, in_bits=True)]


class Annealing(LikelihoodEstimator):
    """Annealed importance sampling of log p(x) with Hamiltonian transitions, certified on simulated images.

    Wu et al. 2017, On the quantitative analysis of decoder-based generative models (https://arxiv.org/abs/1611.04273):
    ``test/log_likelihood_ais`` is too low on average. How far is seen on images that the model simulates, whose latents
    are known, so that they can be annealed backward too (bidirectional Monte Carlo):
    ``test/log_likelihood_ais_simulated`` and ``test/log_likelihood_reverse_ais_simulated`` bracket log p(x) of these on
    average, and ``test/bdmc_gap`` is their distance, which bounds the error of either.

    A decoder without a likelihood, as that of an adversarial network, has one under Gaussian noise put on its images.
    The density depends on the variance of that noise, and is compared at equal ones, or each at the best on validation
    images (``lit-gen validate``). The program that Wu et al. published takes a variance of 0.025 unless told otherwise,
    and names 0.025 for GAN-10 and GMMN-10, 0.03 for VAE-10, 0.01 for GAN-50 and GMMN-50 and 0.005 for VAE-50, on images
    dequantized by noise of one grey level (``data.dequantize``).

    Args:
        num_images: annealed images of the data, the first ones; None: all. The paper has 1,000.
        num_simulated: simulated images; 0 for none.
        num_chains: of each image.
        num_temperatures: steps of annealing; 10,000 in the paper.
        num_leapfrogs: gradients to a step.
        noise_variance: of Gaussian noise in pixel units (images in [0, 1]), for a decoder without a likelihood.
    """

    def __init__(
        self,
        num_images: int | None = 100,
        num_simulated: int = 100,
        num_chains: int = 16,
        num_temperatures: int = 1000,
        num_leapfrogs: int = 10,
        noise_variance: float | None = None,
    ) -> None:
        self.num_images = None if num_images is None else positive("num_images", num_images)
        if num_simulated < 0:
            raise ValueError(f"num_simulated must not be negative, got {num_simulated}; 0 simulates no images")
        if noise_variance is not None and noise_variance <= 0:
            raise ValueError(f"noise_variance must be positive, got {noise_variance}; leave it out for no noise")
        self.num_simulated = num_simulated
        self.num_chains = positive("num_chains", num_chains)
        self.num_temperatures = positive("num_temperatures", num_temperatures)
        self.num_leapfrogs = positive("num_leapfrogs", num_leapfrogs)
        self.noise_variance = noise_variance

    def lacks(self, trainer: pl.Trainer, model: GenerativeModel) -> str | None:
        if not isinstance(model, Decodes):
            return f"{type(model).__name__} decodes no latents"
        decoded = model.decode_joint(*_draw(model, 1))
        if isinstance(decoded, Distribution) and self.noise_variance is not None:
            raise ValueError(
                f"noise_variance={self.noise_variance} is for decoders without a likelihood, and"
                f" {type(model).__name__} has one: leave it out"
            )
        if not isinstance(decoded, Distribution) and self.noise_variance is None:
            return f"{type(model).__name__} decodes images without a likelihood: give noise_variance, 0.025 say"
        return None

    def is_density(self, model: Any) -> bool:
        return self.noise_variance is not None or super().is_density(model)

    def observed(self, model: Any, u: Tensor, condition: Any) -> Distribution:
        """p(x given u): the likelihood of the decoder, or the noise about its images."""
        decoded = model.decode_joint(u, condition)
        if isinstance(decoded, Distribution):
            return decoded
        assert self.noise_variance is not None
        pixels = Normal(decoded, math.sqrt(self.noise_variance), validate_args=False)
        return Independent(pixels, decoded.ndim - 1, validate_args=False)

    def simulated(self, model: Any) -> Work | None:
        if not self.num_simulated:
            return None
        # From the very densities that :meth:`measure` takes, or the latents were no exact draws from the posterior.
        with torch.autocast(model.device.type, enabled=False):
            u, condition = _draw(model, self.num_simulated)
            return Work("simulated", self.observed(model, u, condition).sample(), condition, u)

    def images_at_a_time(self, max_rows: int) -> int:
        return max(1, max_rows // self.num_chains)

    def measure(self, model: Any, work: Work, max_rows: int, progress: Progress) -> Tensor:
        count = len(work.images)

        def log_likelihood(u: Tensor, images: Tensor) -> Tensor:
            return self.observed(model, u, repeat_condition(work.condition, len(u) // count)).log_prob(images)

        rows = []
        # Small differences of large numbers: no half precision here.
        with torch.autocast(work.images.device.type, enabled=False):
            for latents in (None, work.latents) if work.latents is not None else (None,):
                found = decoder_log_likelihood(
                    log_likelihood,
                    model.joint_prior(work.condition),
                    work.images,
                    self.num_chains,
                    sigmoid_temperatures(self.num_temperatures),
                    latents,
                    num_leapfrogs=self.num_leapfrogs,
                    max_rows=count * self.num_chains,
                    progress=progress,
                )
                rows += [found.log_likelihood, found.effective_sample_size, found.acceptance]
        if work.latents is not None:
            rows.append(rows[3] - rows[0])
        return torch.stack([row.cpu().double() for row in rows], 1)

    def conclude(self, moments: Mapping[str, Moments]) -> list[Finding]:
        found = moments["data"]
        value, effective, acceptance = found.mean.tolist()
        findings = [
            Finding("log_likelihood_ais", value, found.standard_error(), found.count, in_bits=True),
            Finding("ais_effective_sample_size", effective, None, found.count),
            Finding("ais_acceptance", acceptance, None, found.count),
        ]
        if "simulated" in moments:
            found = moments["simulated"]
            mean = found.mean.tolist()
            findings += [
                Finding("log_likelihood_ais_simulated", mean[0], found.standard_error(0), 0, found.count),
                Finding("log_likelihood_reverse_ais_simulated", mean[3], found.standard_error(3), 0, found.count),
                Finding("bdmc_gap", mean[6], found.standard_error(6), 0, found.count),
            ]
        return findings


class ParzenWindow(LikelihoodEstimator):
    """The Parzen-window estimate by its published protocol, ``test/log_likelihood_parzen``.

    Breuleux, Bengio & Vincent 2011; Goodfellow et al. 2014: a normal kernel at each of 10,000 samples, whose standard
    deviation, ``test/parzen_sigma``, is the best of ten on 1,000 validation images. To be compared with published
    estimates, and with nothing else: it is off by hundreds of nats (:mod:`lit_gen.inference.parzen`).

    Args:
        num_samples: samples of the model.
        num_validation: images by which the standard deviation is chosen, the first ones of the data module.
        sigmas: standard deviations to choose from, in pixel units; one of them needs no validation images.
        num_images: measure so many images; None: all.
    """

    takes_grey_levels = True

    def __init__(
        self,
        num_samples: int = 10_000,
        num_validation: int = 1000,
        sigmas: Sequence[float] = GRID,
        num_images: int | None = None,
    ) -> None:
        self.num_samples = positive("num_samples", num_samples)
        self.num_validation = positive("num_validation", num_validation)
        self.sigmas = check_sigmas(sigmas)
        self.num_images = None if num_images is None else positive("num_images", num_images)
        self._samples, self._sigma = torch.zeros(0), self.sigmas[0]

    def lacks(self, trainer: pl.Trainer, model: GenerativeModel) -> str | None:
        if len(self.sigmas) > 1 and next(validation_batches(trainer), None) is None:
            return "there are no validation images in a data module to choose sigma by"
        return None

    def is_density(self, model: Any) -> bool:
        return True

    def prepare(self, trainer: pl.Trainer, model: Any, max_rows: int) -> dict[str, Any]:
        counts = [min(max_rows, self.num_samples - start) for start in range(0, self.num_samples, max_rows)]
        self._samples = torch.cat([model.sample(count) for count in counts])
        if len(self.sigmas) > 1:
            batches = validation_batches(trainer, self.num_validation)
            images = torch.cat([batch[0].cpu() for batch in batches])[: self.num_validation].to(self._samples)
            # Every process has validation images of its own, and one of them decides.
            best = parzen_log_likelihood(images[:1], self._samples, images, self.sigmas, max_rows).sigma
            self._sigma = trainer.strategy.broadcast(best)
            warn_at_ends(self, self._sigma, self.sigmas, "; the published protocol has ten from 0.1 to 1")
        return {"sigma": self._sigma}

    def images_at_a_time(self, max_rows: int) -> int:
        return min(500, max_rows)

    def measure(self, model: Any, work: Work, max_rows: int, progress: Progress) -> Tensor:
        found = parzen_log_likelihood(work.images, self._samples, None, [self._sigma], max_rows, progress)
        return found.log_likelihoods.cpu()[:, None]

    def conclude(self, moments: Mapping[str, Moments]) -> list[Finding]:
        found = moments["data"]
        value = found.mean.item()
        return [
            Finding("log_likelihood_parzen", value, found.standard_error(), found.count, self.num_samples),
            Finding("parzen_sigma", self._sigma, None, found.count, self.num_samples),
        ]


class ActiveUnits(LikelihoodEstimator):
    """How many latent units tell images apart, ``test/active_units`` (Burda et al. 2015, section 5.2).

    Units with Cov_x(E_q[u given x]) > 0.01, of every stochastic layer; where there are several, each also for itself,
    from the image upwards: ``test/active_units_1`` and so on. A model that draws in steps, such as DRAW, has a layer
    for each, the first one first: the mean of a step is that given draws of the steps before it.

    Args:
        num_samples: draws of q for each image where its mean is not known in closed form; the noise they leave in the
            mean is taken off the covariance.
        num_images: measure so many images; None: all.
    """

    def __init__(self, num_samples: int = 50, num_images: int | None = None) -> None:
        self.num_samples = positive("num_samples", num_samples)
        self.num_images = None if num_images is None else positive("num_images", num_images)
        self._units: list[int] = []

    def lacks(self, trainer: pl.Trainer, model: GenerativeModel) -> str | None:
        return None if isinstance(model, InfersLatents) else f"{type(model).__name__} encodes no images"

    def images_at_a_time(self, max_rows: int) -> int:
        return max(1, max_rows // self.num_samples)

    def prepare(self, trainer: pl.Trainer, model: Any, max_rows: int) -> dict[str, Any]:
        images = next(model.parameters()).new_zeros(1, *model.image_shape)
        self._units = [layer[0].numel() for layer in model.posterior_draws(images, 1, _conditions(model, 1))]
        return {"units": self._units}

    def measure(self, model: Any, work: Work, max_rows: int, progress: Progress) -> Tensor:
        moments = map(posterior_moments, model.posterior_draws(work.images, self.num_samples, work.condition))
        means, errors = zip(*moments, strict=True)
        return torch.cat([*means, *errors], 1)

    def conclude(self, moments: Mapping[str, Moments]) -> list[Finding]:
        found = moments["data"]
        units = sum(self._units)
        active = activity(found.variance[:units], found.mean[units:]) > ACTIVE_VARIANCE
        findings = [Finding("active_units", float(active.sum()), None, found.count)]
        if len(self._units) > 1:
            for layer, part in enumerate(active.split(self._units), 1):
                findings.append(Finding(f"active_units_{layer}", float(part.sum()), None, found.count))
        return findings


def check_sigmas(sigmas: Sequence[float]) -> list[float]:
    """Standard deviations to choose from.

    Raises:
        ValueError: there are none, or one is not positive.
    """
    if not sigmas or min(sigmas) <= 0:
        raise ValueError(f"sigmas must be positive, at least one of them, got {list(sigmas)}")
    return list(sigmas)


def warn_at_ends(estimator: LikelihoodEstimator, sigma: float, sigmas: Sequence[float], remark: str = "") -> None:
    """Warn where the best standard deviation is the least or the largest of those there were to choose from."""
    ends = {min(sigmas): "least", max(sigmas): "largest"}
    if sigma in ends:
        rank_zero_warn(
            f"{type(estimator).__name__} took the {ends[sigma]} of its sigmas, {sigma:.3g}: another beyond it may be"
            f" better. For the best estimate give more of them{remark}"
        )


def validation_batches(trainer: pl.Trainer, num_images: int = 1) -> Iterator[Any]:
    """Batches of the validation data of the run's data module, if there are any, until they hold so many images."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if datamodule is None or not is_overridden("val_dataloader", datamodule):
        return
    datamodule.setup("validate")
    loaders = datamodule.val_dataloader()
    seen = 0
    for batch in loaders if not isinstance(loaders, list) else chain.from_iterable(loaders):
        yield batch
        seen += len(batch[0])
        if seen >= num_images:
            return


def _conditions(model: Any, count: int) -> Any:
    """Conditions drawn from the model's own prior, where it has one."""
    if not isinstance(model, Conditional):
        return None
    device = model.device  # type: ignore[attr-defined]
    return move_data_to_device(model.sample_condition(count), device)


def _draw(model: Any, count: int) -> tuple[Tensor, Any]:
    """All that so many images are decoded from, with their conditions."""
    condition = _conditions(model, count)
    prior = model.joint_prior(condition)
    return prior.sample() if prior.batch_shape else prior.sample(torch.Size([count])), condition
