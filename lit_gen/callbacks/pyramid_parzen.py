"""The likelihood of a pyramid of generators, level by level, for the :class:`~lit_gen.callbacks.LikelihoodDesk`."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lit_gen.callbacks.estimator import Finding, LikelihoodEstimator, Moments, Work
from lit_gen.callbacks.estimators import check_sigmas, validation_batches, warn_at_ends
from lit_gen.callbacks.evaluation import first, positive
from lit_gen.inference import Progress, PyramidLikelihood
from lit_gen.models.base import EstimatesLevels, GenerativeModel

SIGMAS = tuple(10 ** (-2 + step / 6) for step in range(13))
"""From 0.01 to 1, evenly in the logarithm: what finer levels add is small."""


class PyramidParzen(LikelihoodEstimator):
    """Parzen windows at every level of a pyramid, ``test/log_likelihood_pyramid_parzen`` (Denton et al. 2015).

    Of the coarsest level as in :class:`ParzenWindow`, of each finer one by samples for the coarse version of the image
    that is measured, in what that version leaves open (:mod:`lit_gen.models.pyramid_likelihood`). Beside the sum are
    logged what each level adds to it, ``test/log_likelihood_pyramid_parzen_level0`` for the finest and so on, and its
    standard deviation, ``test/pyramid_parzen_sigma_level0``. To be compared with estimates of the same protocol alone.

    Args:
        num_samples: samples of the coarsest level.
        num_residuals: samples of each finer level for each image.
        num_validation: images by which the standard deviations are chosen, the first ones of the data module.
        sigmas: standard deviations to choose from at each level, in pixel units; one of them needs no validation
            images.
        num_images: measure so many images, the first ones; None: all.
    """

    takes_grey_levels = True

    def __init__(
        self,
        num_samples: int = 10_000,
        num_residuals: int = 200,
        num_validation: int = 200,
        sigmas: Sequence[float] = SIGMAS,
        num_images: int | None = 1000,
    ) -> None:
        self.num_samples = positive("num_samples", num_samples)
        self.num_residuals = positive("num_residuals", num_residuals)
        self.num_validation = positive("num_validation", num_validation)
        self.sigmas = check_sigmas(sigmas)
        self.num_images = None if num_images is None else positive("num_images", num_images)
        self._chosen: list[float] | None = None

    def lacks(self, trainer: pl.Trainer, model: GenerativeModel) -> str | None:
        if not isinstance(model, EstimatesLevels):
            return f"{type(model).__name__} has no levels to be measured one by one"
        if len(self.sigmas) > 1 and next(validation_batches(trainer), None) is None:
            return "there are no validation images in a data module to choose sigmas by"
        return None

    def is_density(self, model: Any) -> bool:
        return True

    def prepare(self, trainer: pl.Trainer, model: Any, max_rows: int) -> dict[str, Any]:
        if len(self.sigmas) == 1:
            return {}
        batches = [
            model.unpack(move_data_to_device(batch, model.device))
            for batch in validation_batches(trainer, self.num_validation)
        ]
        images = torch.cat([batch for batch, _ in batches])[: self.num_validation]
        held_out = images, first(joined([condition for _, condition in batches]), len(images))
        # An image must be judged where sigmas are chosen, and says nothing of them.
        judged = held_out[0][:1], first(held_out[1], 1)
        found = self._estimate(model, judged, held_out, max_rows, iter)
        # Every process has validation images of its own, and one of them decides.
        chosen: list[float] = trainer.strategy.broadcast([level.sigma for level in found.levels])
        for sigma in chosen:
            warn_at_ends(self, sigma, self.sigmas)
        self._chosen = chosen
        return {"sigmas": chosen}

    def images_at_a_time(self, max_rows: int) -> int:
        return min(100, max_rows)

    def measure(self, model: Any, work: Work, max_rows: int, progress: Progress) -> Tensor:
        found = self._estimate(model, (work.images, work.condition), None, max_rows, progress)
        # The volume that downsampling takes belongs to what the larger image adds.
        levels = [
            level.log_likelihoods + volume
            for level, volume in zip(found.levels, [*found.log_volumes, 0.0], strict=True)
        ]
        return torch.stack([found.log_likelihoods, *levels], 1)

    def _estimate(
        self,
        model: EstimatesLevels,
        judged: tuple[Tensor, Any],
        held_out: tuple[Tensor, Any] | None,
        max_rows: int,
        progress: Progress,
    ) -> PyramidLikelihood:
        validation, validation_condition = held_out or (None, None)
        return model.log_likelihood_parzen(
            judged[0],
            validation,
            judged[1],
            validation_condition,
            num_samples=self.num_samples,
            num_residuals=self.num_residuals,
            sigmas=self.sigmas,
            level_sigmas=self._chosen if held_out is None else None,
            max_rows=max(1, max_rows // self.num_residuals),
            progress=progress,
        )

    def conclude(self, moments: Mapping[str, Moments]) -> list[Finding]:
        found = moments["data"]
        total, *levels = found.mean.tolist()
        name, count = "log_likelihood_pyramid_parzen", found.count
        findings = [Finding(name, total, found.standard_error(), count, self.num_samples)]
        sigmas = self._chosen or len(levels) * self.sigmas
        for level, (value, sigma) in enumerate(zip(levels, sigmas, strict=True)):
            error, drawn = found.standard_error(level + 1), self.num_residuals
            if level == len(levels) - 1:
                drawn = self.num_samples
            findings.append(Finding(f"{name}_level{level}", value, error, count, drawn))
            findings.append(Finding(f"pyramid_parzen_sigma_level{level}", sigma, None, count, drawn))
        return findings


def joined(conditions: Sequence[Any]) -> Any:
    """The conditions of batches as those of one: tensors, tuples of them, or None."""
    one = conditions[0]
    if isinstance(one, Tensor):
        return torch.cat(list(conditions))
    return None if one is None else type(one)(*map(joined, zip(*conditions, strict=True)))
