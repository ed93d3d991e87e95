"""How well a linear classifier does on features that were learnt without labels.

Radford, Metz & Chintala 2015, Unsupervised representation learning with deep convolutional generative adversarial
networks (https://arxiv.org/abs/1511.06434), section 5: the maps of all convolutions of the discriminator, max-pooled to
4x4 and strung together, and a regularised linear L2-SVM.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d
from torchmetrics.utilities import rank_zero_warn

from lit_gen.metrics.base import check_matrix

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

COSTS = (0.1, 1.0, 10.0, 100.0)
"""Weights of the loss beside the squared length of the weights, of which cross-validation chooses."""
STEPS = 2000
"""Iterations after which the solver gives up."""


class ProbeResult(NamedTuple):
    """How well a linear classifier does."""

    accuracy: float  # on test images, between 0 and 1
    cost: float  # that cross-validation chose
    validation_accuracy: float  # of that cost, mean over folds
    num_features: int
    num_train: int


def pooled_features(maps: Sequence[Tensor], grid: int = 4) -> Tensor:
    """The maps of all layers, each max-pooled to a grid, as one row of features for each image.

    Args:
        maps: ``(B, C, H, W)`` each; one that is smaller than the grid stays as it is.
        grid: height and width of what is left of a map.

    Returns:
        ``(B, D)``, D = Σ C min(H, grid) min(W, grid).

    Raises:
        ValueError: no maps, or ``grid`` below 1.

    Example:
        >>> import torch
        >>> pooled_features([torch.rand(2, 128, 16, 16), torch.rand(2, 256, 2, 2)]).shape
        torch.Size([2, 3072])
    """
    if not maps or grid < 1:
        raise ValueError(f"features need maps and a grid of at least 1, got {len(maps)} maps and grid {grid}")
    pooled = [
        adaptive_max_pool2d(layer, (min(grid, layer.shape[2]), min(grid, layer.shape[3]))).flatten(1) for layer in maps
    ]
    return torch.cat(pooled, 1)


class FittedProbe(NamedTuple):
    """A linear classifier, and how it was found."""

    machine: "LinearSVC"
    length: float  # by which features are divided
    cost: float
    validation_accuracy: float

    def correct(self, features: Tensor, targets: Tensor) -> Tensor:
        """Whether each of ``(N, D)`` features is classified as ``(N,)`` targets have it: bool ``(N,)``."""
        found = torch.as_tensor(self.machine.predict((features.cpu() / self.length).numpy()))
        return found == targets.cpu()


def fit_probe(
    features: Tensor, targets: Tensor, costs: Sequence[float] = COSTS, folds: int = 3, seed: int = 0
) -> FittedProbe:
    """Fit a linear SVM with squared hinge loss and squared weights (L2-SVM), one class against the others.

    Features are divided by their mean length first, so that a cost means the same of all networks. Costs are tried from
    the smallest, which is fitted soonest, until one does worse than the one before.

    Args:
        features: ``(N, D)``.
        targets: class numbers ``(N,)``.
        costs: weights of the loss to choose from.
        folds: parts of cross-validation, each with all classes alike.
        seed: of the division into folds.

    Raises:
        ValueError: features and targets that do not belong together, or classes with fewer images than folds.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import LinearSVC

    check_matrix(features, "features")
    if targets.shape != features.shape[:1] or targets.is_floating_point():
        raise ValueError(
            f"targets must be class numbers ({len(features)},), got {targets.dtype} {tuple(targets.shape)}"
        )
    rarest = int(targets.unique(return_counts=True)[1].min())
    if rarest < folds or len(targets.unique()) < 2:
        raise ValueError(
            f"cross-validation in {folds} folds needs two classes of at least as many images, got"
            f" {len(targets.unique())} classes and {rarest} images of the rarest: take more images or fewer folds"
        )
    length = features.double().norm(dim=1).mean().clamp(min=1e-12).item()
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    rows, classes = (features.cpu() / length).numpy(), targets.cpu().numpy()

    def machine(cost: float) -> LinearSVC:
        return LinearSVC(C=cost, loss="squared_hinge", penalty="l2", dual="auto", max_iter=STEPS, random_state=seed)

    chosen, best = 0.0, -1.0
    with warnings.catch_warnings():
        # Of costs that are not chosen it does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for cost in sorted(costs):
            score = float(cross_val_score(machine(cost), rows, classes, cv=parts).mean())
            if score < best:
                break
            if score > best:
                chosen, best = cost, score
        fitted = machine(chosen).fit(rows, classes)
    if fitted.n_iter_ >= STEPS:
        rank_zero_warn("the linear classifier has not converged: its accuracy may be too low; try smaller costs")
    return FittedProbe(fitted, length, chosen, best)


def linear_probe(
    features: Tensor,
    targets: Tensor,
    test_features: Tensor,
    test_targets: Tensor,
    costs: Sequence[float] = COSTS,
    folds: int = 3,
    seed: int = 0,
) -> ProbeResult:
    """Accuracy of a linear classifier on test images, its one setting chosen by cross-validation of training images.

    Args:
        features: of training images, ``(N, D)``.
        targets: their class numbers, ``(N,)``.
        test_features: of test images, ``(M, D)``.
        test_targets: their class numbers, ``(M,)``.
        costs: weights of the loss to choose from.
        folds: parts of cross-validation.
        seed: of the division into folds.

    Raises:
        ValueError: features and targets that do not belong together, or too few images.
    """
    check_matrix(test_features, "test_features", width=features.shape[-1])
    probe = fit_probe(features, targets, costs, folds, seed)
    correct = probe.correct(test_features, test_targets)
    return ProbeResult(
        correct.double().mean().item(), probe.cost, probe.validation_accuracy, features.shape[1], len(features)
    )
