"""All scores of a generative model from one pass of a feature extractor, each with its receipt."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from lit_gen.metrics.base import SmallSampleWarning, check_sample_counts
from lit_gen.metrics.density_coverage import DensityCoverage
from lit_gen.metrics.features import FeatureExtractor
from lit_gen.metrics.fid import FID
from lit_gen.metrics.inception_score import InceptionScore
from lit_gen.metrics.kid import KID
from lit_gen.metrics.precision_recall import PrecisionRecall
from lit_gen.metrics.receipt import Receipt, Setting

MetricName = Literal["fid", "inception_score", "kid", "precision_recall", "density_coverage"]


class SampleCounts(Metric):
    """Numbers of real and generated images, summed over processes."""

    full_state_update = False

    real: Tensor
    generated: Tensor

    def __init__(self, reset_real_features: bool = True) -> None:
        super().__init__()
        self.reset_real_features = reset_real_features
        self.add_state("real", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("generated", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, count: int, real: bool) -> None:
        """Count ``count`` more images."""
        if real:
            self.real += count
        else:
            self.generated += count

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the numbers of real and of generated images, each ``()``."""
        return self.real, self.generated

    def reset(self) -> None:
        """Forget the generated images, and the real ones unless ``reset_real_features`` is False."""
        real = self.real
        super().reset()
        if not self.reset_real_features:
            self.real = real


class GenerationScores(nn.Module):
    """Compares generated with real images in the features of one extractor.

    Each image passes through the extractor once, whatever the number of metrics. The global random generators are left
    as they were, and nothing requires grad. States are float64 and synchronised over processes in ``compute``. Move it
    to a device with ``to``; images come from any device.

    Args:
        extractor: the feature extractor.
        split: data set and split of the real images, for the receipts, such as "MNIST/test".
        metrics: which metrics to compute; "inception_score" asks for an extractor that classifies.
        reset_real_features: if False, ``reset`` keeps the real side, so that it passes through the extractor only once.
        inception_score_splits: parts of the Inception Score.
        kid_subsets: random subsets of KID.
        kid_subset_size: samples of each side in a subset.
        precision_recall_k: nearest neighbour that gives the radius in precision and recall.
        density_coverage_k: nearest neighbour that gives the radius in density and coverage.

    Raises:
        ValueError: if a metric is unknown or named twice, none is named, or the extractor lacks logits.

    Example:
        >>> import torch
        >>> from lit_gen.metrics import GenerationScores, Pixels
        >>> scores = GenerationScores(Pixels((1, 1, 1)), split="toy/test", metrics=("fid",))
        >>> scores.update(torch.tensor([0.0, 0.2]).view(2, 1, 1, 1), real=True)
        >>> scores.update(torch.tensor([0.5, 0.7]).view(2, 1, 1, 1), real=False)
        >>> round(scores.compute()["fid"].value, 4)
        0.25
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        split: str,
        metrics: Sequence[MetricName] = ("fid", "kid", "precision_recall", "density_coverage"),
        reset_real_features: bool = True,
        inception_score_splits: int = 10,
        kid_subsets: int = 100,
        kid_subset_size: int = 1000,
        precision_recall_k: int = 3,
        density_coverage_k: int = 5,
    ) -> None:
        super().__init__()
        names = get_args(MetricName)
        unknown = [name for name in metrics if name not in names]
        if unknown or not metrics or len(set(metrics)) < len(metrics):
            raise ValueError(f"metrics must be one or more of {', '.join(names)}, each once; got {list(metrics)}")
        if "inception_score" in metrics and extractor.num_classes is None:
            raise ValueError(
                f"the Inception Score needs class logits, which {type(extractor).__name__} does not give: leave out "
                '"inception_score", or use InceptionV3 or ClassifierFeatures'
            )
        self.extractor = extractor
        self.split = split
        self.reset_real_features = reset_real_features
        keep = reset_real_features
        self.counts = SampleCounts(keep)
        self.fid = FID(extractor.num_features, keep) if "fid" in metrics else None
        self.inception_score = InceptionScore(inception_score_splits) if "inception_score" in metrics else None
        self.kid = KID(kid_subsets, kid_subset_size, reset_real_features=keep) if "kid" in metrics else None
        self.precision_recall = PrecisionRecall(precision_recall_k, keep) if "precision_recall" in metrics else None
        self.density_coverage = DensityCoverage(density_coverage_k, keep) if "density_coverage" in metrics else None
        self._image_shape: tuple[int, ...] | None = None

    @property
    def device(self) -> torch.device:
        """Where features are computed and kept."""
        return self.counts.device

    @property
    def needs_real(self) -> bool:
        """Whether the real side is still to be given to this process: False when it is kept, or no metric uses it."""
        return any(self._two_sided()) and not int(self.counts.real)

    def _two_sided(self) -> list[FID | KID | PrecisionRecall | DensityCoverage]:
        metrics = (self.fid, self.kid, self.precision_recall, self.density_coverage)
        return [metric for metric in metrics if metric is not None]

    def update(self, images: Tensor, real: bool) -> None:
        """Add a batch.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            real: whether they are real or generated.

        Raises:
            ValueError: if the images are not in [0, 1], or differ in shape from those before.
        """
        shape = tuple(images.shape[1:])
        if self._image_shape is not None and shape != self._image_shape:
            raise ValueError(
                f"{'real' if real else 'generated'} images have shape {shape}, those before {self._image_shape}: give "
                "data and model the same image_size and channels"
            )
        # An extractor of a user may draw random numbers: evaluation must not change the training that follows.
        device = self.device
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            features, logits = self.extractor(images.to(device))
        self._image_shape = shape
        self.counts.update(len(images), real)
        for metric in self._two_sided():
            metric.update(features, real)
        if self.inception_score is not None and not real:
            if logits is None:
                raise ValueError(
                    f"{type(self.extractor).__name__} announced {self.extractor.num_classes} classes but gave no logits"
                )
            self.inception_score.update(logits)

    def compute(self) -> dict[str, Receipt]:
        """Return the receipts of ``fid``, ``inception_score``, ``kid``, ``precision``, ``recall``, ``density`` and
        ``coverage``, those that were asked for.

        A metric of neighbours (the last four) that has no more samples than its k is left out with a warning.

        Raises:
            ValueError: if a side has fewer than two samples.
        """
        num_real, num_generated = (int(count) for count in self.counts.compute())
        if self._two_sided():
            check_sample_counts(num_real, num_generated, minimum=2, metric="GenerationScores")
        receipts: dict[str, Receipt] = {}
        digest = self.extractor.digest()

        def add(metric: str, value: Tensor, std: Tensor | None = None, **settings: Setting) -> None:
            receipts[metric] = Receipt(
                metric=metric,
                value=value.item(),
                std=None if std is None else std.item(),
                extractor=digest,
                extractor_description=self.extractor.description,
                num_real=0 if metric == "inception_score" else num_real,
                num_generated=num_generated,
                split=self.split,
                resize=self.extractor.resize,
                dtype=self.extractor.dtype,
                settings={"image_shape": "x".join(map(str, self._image_shape or ())), **settings},
            )

        def enough(metrics: str, k: int) -> bool:
            if min(num_real, num_generated) > k:
                return True
            rank_zero_warn(
                f"{metrics} are left out: with k={k} they need at least {k + 1} real and as many generated samples, got"
                f" {num_real} and {num_generated}",
                SmallSampleWarning,
            )
            return False

        if self.fid is not None:
            add("fid", self.fid.compute())
        if self.inception_score is not None:
            mean, std = self.inception_score.compute()
            splits = self.inception_score.effective_splits(num_generated)
            add("inception_score", mean, std, splits=splits, seed=self.inception_score.seed)
        if self.kid is not None:
            mean, std = self.kid.compute()
            subset_size = self.kid.effective_subset_size(num_real, num_generated)
            add("kid", mean, std, subsets=self.kid.subsets, subset_size=subset_size, seed=self.kid.seed)
        if self.precision_recall is not None and enough("precision and recall", self.precision_recall.k):
            precision, recall = self.precision_recall.compute()
            add("precision", precision, k=self.precision_recall.k)
            add("recall", recall, k=self.precision_recall.k)
        if self.density_coverage is not None and enough("density and coverage", self.density_coverage.k):
            density, coverage = self.density_coverage.compute()
            add("density", density, k=self.density_coverage.k)
            add("coverage", coverage, k=self.density_coverage.k)
        return receipts

    def reset(self) -> None:
        """Forget the generated side, and the real one unless ``reset_real_features`` is False."""
        for metric in (self.counts, self.inception_score, *self._two_sided()):
            if metric is not None:
                metric.reset()
        if self.reset_real_features:
            self._image_shape = None
