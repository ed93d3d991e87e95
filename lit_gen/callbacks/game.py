"""What the doctor looks at in a game between networks: discriminators, and the variety of samples."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lit_gen.callbacks.evaluation import evaluation
from lit_gen.callbacks.remedies import Remedies
from lit_gen.callbacks.symptoms import sample_spread
from lit_gen.metrics import BirthdayResult, DensityCoverage, DensityCoverageResult, birthday_test, duplicate_radius
from lit_gen.models.base import GenerativeModel

FEWEST_NEIGHBOURS = 50
"""Images and samples from which neighbours among them say anything."""
LARGEST_SIDE = 32
"""Pixels a side to which images are averaged before they are compared."""
BALLS = 5
"""Which nearest neighbour gives the radius of the balls of density and coverage; that of Naeem et al. 2020."""


class Finding(NamedTuple):
    """Something that may be wrong, whether it is so now, and what to say if it lasts."""

    name: str
    present: bool
    advice: str


# ---- samples


class Variety(NamedTuple):
    """How much samples differ, beside how much images do."""

    spread: float
    """Mean distance of two samples, relative to that of two images."""
    birthday: BirthdayResult | None
    """Duplicates among the samples; None where there are too few images to say what a duplicate is."""
    real_support: float
    """What the same test says of as many images."""
    neighbours: DensityCoverageResult | None
    """None where there are too few."""

    @property
    def repeats(self) -> bool:
        """Whether the typical sample has a duplicate among the others, and images have not."""
        found = self.birthday
        return found is not None and found.support < min(found.num_samples, 0.1 * self.real_support)

    @property
    def crowds(self) -> bool:
        """Whether samples lie among images, but among few of them."""
        if self.neighbours is None:
            return False
        density, coverage = (value.item() for value in self.neighbours)
        return density > 0.1 and coverage < 0.5 * even_coverage(density, BALLS)

    @property
    def collapsed(self) -> bool:
        """Whether any of the three says so."""
        return self.spread < 0.2 or self.repeats or self.crowds


def even_coverage(density: float, k: int) -> float:
    """Coverage of samples that lie among images as evenly as the images themselves, so many of them in each ball.

    The ball to the k-th nearest neighbour holds a share of the images that is Gamma(k)-distributed, and with samples
    ``density`` times as dense a Poisson number of these: none with probability (1 + density)^-k, which at density 1 is
    the 2^-k of Naeem et al. 2020.
    """
    return 1 - (1 + density) ** -k


def variety(samples: Tensor, images: Tensor) -> Variety:
    """Compare samples ``(N, C, H, W)`` with images ``(M, C, H, W)``, at least two of each."""
    seen, real = _features(samples), _features(images)
    spread = sample_spread(seen, real)
    if min(len(seen), len(real)) < FEWEST_NEIGHBOURS:
        return Variety(spread, None, math.inf, None)
    radius = duplicate_radius(real)
    metric = DensityCoverage(BALLS)
    metric.update(real, real=True)
    metric.update(seen, real=False)
    return Variety(spread, birthday_test(seen, radius), birthday_test(real, radius).support, metric.compute())


def _features(images: Tensor) -> Tensor:
    images = images.detach().float().cpu()
    if images.ndim == 4 and max(images.shape[-2:]) > LARGEST_SIDE:
        images = adaptive_avg_pool2d(images, (min(images.shape[-2], LARGEST_SIDE), min(images.shape[-1], LARGEST_SIDE)))
    return images.flatten(1)


def judge_variety(found: Variety, model: GenerativeModel) -> Finding:
    """Mode collapse, told with all that speaks for it."""
    reasons = [f"two samples differ {found.spread:.2g} times as much as two images do"]
    if found.birthday is not None and found.birthday.pairs:
        test = found.birthday
        reasons.append(
            f"{test.pairs} pairs among {test.num_samples} samples are duplicates, as if drawn from about"
            f" {test.support:.3g} different images (birthday test)"
        )
    if found.neighbours is not None:
        even = even_coverage(found.neighbours.density.item(), BALLS)
        reasons.append(
            f"samples come near {found.neighbours.coverage.item():.0%} of the images, where as many, evenly spread,"
            f" would come near {even:.0%}"
        )
    return Finding(
        "modes", found.collapsed, f"this is mode collapse: {'; '.join(reasons)}. {Remedies(model).against_collapse()}"
    )


# ---- discriminators


class Duel(NamedTuple):
    """What a discriminator said of recent training batches."""

    loss: float
    """Mean of the discriminator's loss, without penalties."""
    accuracy: float
    """Share of logits on the right side of zero."""
    separation: float
    """Probability that an image has a larger logit than a generated one: 1/2 where they cannot be told apart."""
    gap: float
    """Mean logit of images less that of generated ones."""
    spread: float
    """Standard deviation of all logits."""


def duel(losses: Tensor, real: Tensor, fake: Tensor) -> Duel:
    """What ``(N,)`` losses and logits of images and of generated ones say."""
    losses, real, fake = (values.detach().cpu().double() for values in (losses, real, fake))
    above = (real[:, None] > fake).double().mean() + 0.5 * (real[:, None] == fake).double().mean()
    logits = torch.cat([real, fake])
    return Duel(
        loss=losses.mean().item(),
        accuracy=0.5 * ((real > 0).double().mean() + (fake < 0).double().mean()).item(),
        separation=above.item(),
        gap=(real.mean() - fake.mean()).item(),
        spread=logits.std(correction=0).item(),
    )


def judge_duel(where: str, found: Duel, model: GenerativeModel) -> Iterator[Finding]:
    """What may be wrong with one discriminator.

    Args:
        where: its name, empty where there is one only.
        found: what it said.
        model: which it belongs to.
    """
    who = f"the discriminator of {where}" if where else "the discriminator"
    yield Finding(
        f"won {where}",
        0 <= found.loss < 0.05 and found.separation > 0.999,
        f"{who} has won: it tells real from generated without a mistake (accuracy {found.accuracy:.1%}, a gap of"
        f" {found.gap:.3g} between their logits, loss {found.loss:.2g}), so that the generator learns little from it."
        f" {Remedies(model).against_victory()}",
    )
    # A critic of slope 1 differs by no more than two images, with pixels in [-1, 1], are apart.
    farthest = 2 * math.sqrt(math.prod(model.image_shape))
    yield Finding(
        f"unbounded {where}",
        -found.loss > farthest,
        f"the critic{where and f' of {where}'} gives images {found.gap:.3g} more than generated ones, and no two images"
        f" are farther apart than {farthest:.3g}: its slope is not 1, as the Wasserstein distance takes it to be, and"
        f" its loss has no lower end. {Remedies(model).against_slopes()}",
    )
    yield Finding(
        f"asleep {where}",
        found.spread < 1e-3 and abs(found.separation - 0.5) < 0.1,
        f"{who} gives nearly the same logit to all it sees (they differ by {found.spread:.1g}), and so teaches nothing."
        f" {Remedies(model).against_sleep()}",
    )


# ---- both


class Game:
    """Gathers what is judged of a model at the end of a validation.

    Args:
        num_compared: samples that are compared with each other, and images that they are held against.
        seed: of the samples.
        batches: of each discriminator the latest so many are judged.
    """

    def __init__(self, num_compared: int, seed: int, batches: int = 20) -> None:
        self.num_compared = num_compared
        self.seed = seed
        self.batches = batches
        self._said: dict[str, deque[tuple[Tensor, Tensor, Tensor]]] = {}
        self._drawn: Tensor | None = None
        self._shown: list[Tensor] = []

    def watch(self, values: Mapping[str, Tensor]) -> None:
        """Take in the terms of a training batch, under the names that :class:`HasDiscriminator` gives them."""
        for name in values:
            where = name.removesuffix("real_logit")
            if where != name:
                terms = values[f"{where}discriminator_loss"], values[name], values[f"{where}fake_logit"]
                self._said.setdefault(where, deque(maxlen=self.batches)).append(terms)

    def keep(self, model: GenerativeModel, images: Tensor) -> None:
        """Take in validation images ``(B, C, H, W)``, and draw samples beside the first of them."""
        missing = self.num_compared - sum(map(len, self._shown))
        if missing > 0:
            self._shown.append(images[:missing].detach().cpu())
        if self._drawn is None:
            # Here and not at the end of the epoch, where averaged weights may have been swapped out again.
            sizes = [min(64, self.num_compared - start) for start in range(0, self.num_compared, 64)]
            with evaluation(model, self.seed):
                self._drawn = torch.cat([model.sample(size).cpu() for size in sizes])

    def findings(self, model: GenerativeModel) -> Iterator[Finding]:
        """Judge, log and forget what was taken in."""
        said, self._said = self._said, {}
        for where, batches in said.items():
            yield from judge_duel(where.rstrip("/"), duel(*(torch.cat(part) for part in zip(*batches))), model)
        drawn, shown, self._drawn, self._shown = self._drawn, self._shown, None, []
        if drawn is not None and sum(map(len, shown)) > 1:
            found = variety(drawn, torch.cat(shown))
            model.log("val/sample_spread", found.spread, rank_zero_only=True)
            if found.birthday is not None:
                model.log("val/duplicates", found.birthday.duplicates, rank_zero_only=True)
            yield judge_variety(found, model)
