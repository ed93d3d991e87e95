"""Generating images of known objects from known directions.

Dosovitskiy, Springenberg & Brox 2015, Learning to generate chairs with convolutional neural networks
(https://arxiv.org/abs/1411.5928).

Departures from the paper: images are in [0, 1], where published code divides by 256. Weights are drawn as He et al. do.
Colour is changed by three numbers, where the published vector has more (:class:`PublishedTransformation`). Optimizer
and rates are arguments; 128 pixels are trained from scratch, as the authors' newer code does, not in three stages.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import one_hot

from lit_gen.models.base import Batch, Conditional, GeneratesViews, GenerativeModel, RenderedViews
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.transformations import PublishedTransformation, TransformationFactory
from lit_gen.networks import Shape, UpConvFactory, UpConvNetwork, build
from lit_gen.views import Views, ViewTarget, encode_view

VIEW_FIELDS: dict[str, type] = {"class": int, "azimuth": float, "elevation": float}


class TwoStreamTerms(NamedTuple):
    """Of each image, ``(B,)``."""

    loss: Tensor  # the weighted sum of the others
    image_error: Tensor  # half the squared error, summed over pixels and channels
    mask_error: Tensor  # the same of the mask, in as many copies as the image has channels


class TransformedViews(NamedTuple):
    """Views of B objects, in transformations."""

    views: Views
    parameters: Tensor  # (B, num_parameters)


def two_stream_loss(
    image: Tensor, mask: Tensor, true_image: Tensor, true_mask: Tensor, image_weight: float, mask_weight: float
) -> TwoStreamTerms:
    """Weighted squared errors of image and mask (Dosovitskiy et al. 2015, equation 1).

    Args:
        image: ``(B, C, H, W)``.
        mask: ``(B, C, H, W)``, copies of the mask.
        true_image: ``(B, C, H, W)``; what lies outside of the mask counts as black.
        true_mask: ``(B, 1, H, W)``.
        image_weight: lambda of the paper.
        mask_weight: of the mask.
    """
    image_error = 0.5 * (image - true_image * true_mask).square().flatten(1).sum(1)
    mask_error = 0.5 * (mask - true_mask).square().flatten(1).sum(1)
    return TwoStreamTerms(image_weight * image_error + mask_weight * mask_error, image_error, mask_error)


class ChairGenerator(GenerativeModel, Conditional, GeneratesViews):
    """Decoder from class, view and transformation to image and mask (Dosovitskiy et al. 2015).

    It is trained on every image in a random transformation whose parameters it is told; samples are those of none,
    unless a condition names some (:attr:`condition_fields`). Between classes and between views it interpolates: a
    condition may be a mixture of classes, from anywhere.

    Example:
        >>> model = ChairGenerator((3, 64, 64), num_classes=5)
        >>> model.sample(2, model.make_condition({"class": 3, "azimuth": 40.0, "elevation": 20.0}, 2)).shape
        torch.Size([2, 3, 64, 64])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_classes: number of objects; the command line takes it from the data.
        views: azimuth and elevation, in degrees, of the views in training; the command line takes them from the data.
            Samples without a condition are of any class from one of these. Default: any azimuth, elevations 20 to 30.
        network: from class vector, view and transformation to image and mask.
        transformation: how training images are changed.
        image_weight: of the image's error in the loss; lambda of the paper.
        mask_weight: of the mask's error.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        views: Sequence[tuple[float, float]] = (),
        network: UpConvFactory = UpConvNetwork,
        transformation: TransformationFactory = PublishedTransformation,
        image_weight: float = 10.0,
        mask_weight: float = 1.0,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape)
        if num_classes < 1:
            raise ValueError(
                "a ChairGenerator needs images of known objects, the data has no classes; use SyntheticChairs,"
                " ShapeViews or RenderedChairs"
            )
        if min(image_weight, mask_weight) <= 0:
            raise ValueError(f"image_weight and mask_weight must be positive, got {image_weight} and {mask_weight}")
        self.num_classes = num_classes
        self.seen_views = torch.deg2rad(torch.tensor(list(views), dtype=torch.float32).reshape(-1, 2))
        """Azimuth and elevation of the views in training, ``(V, 2)`` radians, on the CPU."""
        self.transformation = build(transformation)
        self.network = build(network, (num_classes, self.transformation.num_parameters), self.image_shape)
        self.image_weight = image_weight
        self.mask_weight = mask_weight
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler

    # ---- generation

    def generate(self, condition: Views, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Image and mask, ``(B, C, H, W)`` each, of any range, differentiable in all that is given.

        The image is black where the mask is 0; the mask comes in as many copies as the image has channels.

        Args:
            condition: classes, or weights of mixtures, and views.
            parameters: ``(B, num_parameters)`` of the transformation. Default: none, all zeros.
        """
        classes = condition.classes
        if not classes.is_floating_point():
            classes = one_hot(classes, self.num_classes)
        view = encode_view(condition.azimuth, condition.elevation).to(self.dtype)
        if parameters is None:
            parameters = view.new_zeros(len(view), self.transformation.num_parameters)
        return self.network(classes.to(view), view, parameters.to(view))

    @torch.no_grad()
    def render_views(self, views: Views, parameters: Tensor | None = None) -> RenderedViews:
        """Images and masks, in the transformation with these parameters ``(B, num_parameters)``. Default: in none."""
        image, copies = self.generate(views, parameters)
        mask = copies.float().mean(1, keepdim=True).clamp(0, 1)
        return RenderedViews((image.float() * mask + (1 - mask)).clamp(0, 1), mask)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        if isinstance(condition, TransformedViews):
            return self.render_views(*condition).images
        return self.render_views(condition).images

    # ---- conditions

    @property
    def condition_fields(self) -> dict[str, type]:
        """Class, azimuth and elevation in degrees, and what the transformation knows by name."""
        return {**VIEW_FIELDS, **self.transformation.fields}

    def make_condition(self, fields: dict[str, Any], num_samples: int) -> Views | TransformedViews:
        """What is not given is drawn, the class from all, the view from those in training; or changes nothing."""
        for name in fields:
            if name not in self.condition_fields:
                known = ", ".join(self.condition_fields)
                raise ValueError(f"{name} is unknown to this {type(self).__name__}, it takes {known}")
        drawn = self.sample_condition(num_samples)
        number, azimuth, elevation = (fields.get(name) for name in VIEW_FIELDS)
        if number is not None and not 0 <= number < self.num_classes:
            raise ValueError(f"class must lie in 0..{self.num_classes - 1}, got {number}")
        if azimuth is not None and not math.isfinite(azimuth):
            raise ValueError(f"azimuth must be finite, in degrees, got {azimuth}")
        if elevation is not None and not -90 <= elevation <= 90:
            raise ValueError(f"elevation must lie in -90..90 degrees, got {elevation}")
        views = Views(
            drawn.classes if number is None else torch.full((num_samples,), number),
            drawn.azimuth if azimuth is None else torch.full((num_samples,), math.radians(azimuth)),
            drawn.elevation if elevation is None else torch.full((num_samples,), math.radians(elevation)),
        )
        numbers = {name: value for name, value in fields.items() if name not in VIEW_FIELDS}
        if not numbers:
            return views
        return TransformedViews(views, self.transformation.named(numbers).repeat(num_samples, 1))

    def sample_condition(self, num_samples: int) -> Views:
        """Any class, from one of the views in training."""
        classes = torch.randint(self.num_classes, (num_samples,))
        if len(self.seen_views):
            azimuth, elevation = self.seen_views[torch.randint(len(self.seen_views), (num_samples,))].unbind(1)
        else:
            azimuth = 2 * math.pi * torch.rand(num_samples)
            elevation = torch.deg2rad(20 + 10 * torch.rand(num_samples))
        return Views(classes, azimuth, elevation)

    def target_condition(self, target: Any) -> Views:
        return self._views_of(target).views

    def _views_of(self, target: Any) -> ViewTarget:
        if not isinstance(target, ViewTarget):
            found = f"a tensor {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)
            raise ValueError(
                f"the target of a {type(self).__name__} must be views with masks, got {found}; use SyntheticChairs,"
                " ShapeViews or RenderedChairs"
            )
        return target

    # ---- training

    def objective(self, images: Tensor, target: ViewTarget, parameters: Tensor) -> TwoStreamTerms:
        """The terms of each image in this transformation.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            target: what they show, and their masks.
            parameters: ``(B, num_parameters)``.
        """
        images, masks = self.transformation(images, target.mask, parameters)
        image, mask = self.generate(target.views, parameters)
        return two_stream_loss(image.float(), mask.float(), images, masks, self.image_weight, self.mask_weight)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, _ = self.unpack(batch)
        target = self._views_of(batch[1])
        terms = self.objective(images, target, self.transformation.draw(target.mask, self.global_step))
        self.log_training(terms._asdict())
        return terms.loss.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        """The terms of images as they are."""
        images, _ = self.unpack(batch)
        none = torch.zeros(len(images), self.transformation.num_parameters, dtype=torch.float32, device=images.device)
        self.log_evaluation(stage, self.objective(images, self._views_of(batch[1]), none)._asdict(), len(images))

    def configure_optimizers(self) -> Any:
        return self.with_scheduler(self.make_optimizer(self.parameters()), self.make_lr_scheduler)
