"""Transformations of images whose parameters a generator is told (Dosovitskiy et al. 2015, section 3.2)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_gen.networks import Recorded

NAMES = (
    "mirror", "translation_x", "translation_y", "rotation", "zoom", "squeeze", "lightness", "saturation", "hue"
)  # fmt: skip
"""Of the numbers of the published vector, in its order."""
FACTORS = ("zoom", "squeeze", "lightness", "saturation")
"""Of these the vector has the logs; by name they are factors."""
TRIES = 20
"""An object that leaves the frame is given another transformation, up to so many times."""


class Transformation(Recorded, ABC):
    """Changes images with their masks, by a vector of numbers that is zero where nothing changes."""

    num_parameters: int
    """Length of the vector; 0 where nothing ever changes."""

    @property
    def fields(self) -> dict[str, type]:
        """Names and types of what :meth:`named` takes; a transformation that knows none has nothing to override."""
        return {}

    def named(self, numbers: Mapping[str, float]) -> Tensor:
        """The vector ``(num_parameters,)``, float32, of numbers by their names; what is not named changes nothing.

        Raises:
            ValueError: a number outside of what training draws; names it and the range.
        """
        return torch.zeros(self.num_parameters, dtype=torch.float32)

    @abstractmethod
    def draw(self, masks: Tensor, step: int) -> Tensor:
        """Parameters ``(B, num_parameters)`` for objects of these masks ``(B, 1, H, W)``.

        Args:
            masks: where the objects are, which should not leave the frame.
            step: training steps so far.

        Returns:
            float32, whatever the precision of the masks.
        """

    @abstractmethod
    def __call__(self, images: Tensor, masks: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(B, C, H, W)`` and masks ``(B, 1, H, W)`` in [0, 1], transformed, of the parameters' precision."""


TransformationFactory = Callable[[], Transformation]


class NoTransformation(Transformation):
    """Images as they are."""

    num_parameters = 0

    def draw(self, masks: Tensor, step: int) -> Tensor:
        return torch.zeros(len(masks), 0, dtype=torch.float32, device=masks.device)

    def __call__(self, images: Tensor, masks: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return images, masks


class PublishedTransformation(Transformation):
    """Mirror, translation, rotation, zoom and squeeze, lightness, saturation and hue, with the published ranges.

    The vector: mirrored (0 or 1), translation to the right and downwards (shares of the image), rotation
    (counter-clockwise, radians), logs of zoom, of squeeze (width over height), of lightness and of saturation, and hue
    (radians about the grey axis). All but the mirror are uniform within plus and minus their range; the ranges grow
    from 0 with the steps as 2 / (1 + exp(-ramp step)) - 1.

    By name (:meth:`named`; ``lit-gen sample --condition rotation=0.1 zoom=1.2``) they are ``mirror``,
    ``translation_x``, ``translation_y``, ``rotation``, ``zoom``, ``squeeze``, ``lightness``, ``saturation`` and
    ``hue``, in the same units; but zoom, squeeze, lightness and saturation are factors: 1 changes nothing.

    The published vector has 28 numbers, many of them colour factors of single channels; here colour is three numbers.

    Args:
        mirror: probability of a mirror image.
        translation: share of the image.
        rotation: radians.
        zoom: of its log.
        squeeze: of its log.
        lightness: of its log.
        saturation: of its log.
        hue: radians.
        ramp: of the ranges; None: they are full from the first step.
        length: of the vector, zeros appended; 28 gives a generator the published number of weights.
    """

    def __init__(
        self,
        mirror: float = 0.5,
        translation: float = 0.1,
        rotation: float = 0.2,
        zoom: float = 0.3,
        squeeze: float = 0.1,
        lightness: float = 0.7,
        saturation: float = 0.7,
        hue: float = 1.5,
        ramp: float | None = 1e-5,
        length: int = 9,
    ) -> None:
        ranges = [translation, translation, rotation, zoom, squeeze, lightness, saturation, hue]
        if not 0 <= mirror <= 1 or min(ranges) < 0 or (ramp is not None and ramp <= 0):
            raise ValueError(
                "mirror must be a probability, ranges must not be negative, and ramp must be positive (or None); got"
                f" mirror={mirror}, ramp={ramp} and ranges {ranges}"
            )
        if length < 1 + len(ranges):
            raise ValueError(f"length must be at least {1 + len(ranges)}, got {length}")
        self.mirror = mirror
        self.ranges = ranges
        self.ramp = ramp
        self.num_parameters = length

    @property
    def fields(self) -> dict[str, type]:
        return {name: int if name == "mirror" else float for name in NAMES}

    def named(self, numbers: Mapping[str, float]) -> Tensor:
        vector = torch.zeros(self.num_parameters, dtype=torch.float32)
        bounds = dict(zip(NAMES, [1.0 if self.mirror else 0.0, *self.ranges], strict=True))
        for name, number in numbers.items():
            low, high = (-bounds[name], bounds[name]) if name != "mirror" else (0.0, bounds[name])
            if name in FACTORS:
                low, high = math.exp(low), math.exp(high)
            slack = 1e-3 * high  # the message rounds the bounds, and what it shows is taken
            half = name == "mirror" and number not in (0, 1)
            if half or not low - slack <= number <= high + slack:
                wanted = f"be {high:.4g}" if low == high else f"lie in {low:.4g}..{high:.4g}"
                wanted = "be 0 or 1" if name == "mirror" and high else wanted
                raise ValueError(f"{name} must {wanted}, as training has it; got {number:g}")
            vector[NAMES.index(name)] = math.log(number) if name in FACTORS else number
        return vector

    def draw(self, masks: Tensor, step: int) -> Tensor:
        share = 1.0 if self.ramp is None else 2 / (1 + math.exp(-self.ramp * step)) - 1
        total = len(masks)
        # Where training is in half precision throughout, the default type is half too.
        full: dict[str, Any] = {"dtype": torch.float32, "device": masks.device}
        ranges = share * torch.tensor(self.ranges, **full)
        uniform = torch.rand(TRIES, total, len(self.ranges), **full)
        mirrored = (torch.rand(TRIES, total, 1, **full) < self.mirror).float()
        tries = torch.cat([mirrored, (2 * uniform - 1) * ranges], 2)
        fits = torch.stack([self.fits(masks, some) for some in tries])  # (TRIES, B)
        first = fits.to(torch.uint8).argmax(0).where(fits.any(0), TRIES - 1)
        chosen = tries[first, torch.arange(total, device=masks.device)]
        return F.pad(chosen, (0, self.num_parameters - chosen.shape[1]))

    def fits(self, masks: Tensor, parameters: Tensor) -> Tensor:
        """Whether the corners of what each mask covers stay in the frame: bool ``(B,)``."""
        spans = []
        for side in (3, 2):  # across, then down
            covered = masks.amax((1, 5 - side)) > 0.5  # (B, side)
            numbers = torch.arange(covered.shape[1], dtype=torch.float32, device=masks.device)
            middles = (numbers + 0.5) * (2 / covered.shape[1]) - 1
            spans.append((middles.where(covered, 1).amin(1), middles.where(covered, -1).amax(1)))
        (left, right), (top, bottom) = spans
        corners = torch.stack([torch.stack([x, y], 1) for x in (left, right) for y in (top, bottom)], 2)
        moved = self.forward_places(parameters, corners, (masks.shape[2], masks.shape[3]))
        return (moved.abs() <= 1).all(2).all(1)

    def forward_places(self, parameters: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
        """Where places in images of this height and width, ``(B, 2, P)`` from -1 to 1, are in the result."""
        backward = self.affine(parameters, size)
        (a, b, right), (c, d, down) = (row.unbind(1) for row in backward.unbind(1))
        x, y = places[:, 0] - right[:, None], places[:, 1] - down[:, None]
        inverse = [[d, -b], [-c, a]]
        determinant = (a * d - b * c)[:, None]
        return torch.stack([(p[:, None] * x + q[:, None] * y) / determinant for p, q in inverse], 1)

    def affine(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """From places in the result to places in the image, ``(B, 2, 3)``, coordinates from -1 to 1.

        Args:
            parameters: ``(B, num_parameters)``.
            size: height and width of the images.
        """
        mirrored, right, down, angle, zoom, squeeze = parameters[:, :6].unbind(1)
        across = (1 - 2 * mirrored) * torch.exp(-zoom - squeeze / 2)
        upright = torch.exp(-zoom + squeeze / 2)
        cos, sin = angle.cos(), angle.sin()
        # Coordinates from -1 to 1 are stretched where images are not square: angles are those between pixels.
        height, width = size
        down_sin, across_sin = (height / width) * sin, (width / height) * sin
        # Undo the translation, then the rotation, then zoom and mirror. Products one by one: a matrix product would be
        # rounded in mixed precision.
        rows = torch.stack([across * cos, -across * down_sin, upright * across_sin, upright * cos], 1).view(-1, 2, 2)
        shift = (rows * 2 * torch.stack([right, down], 1)[:, None]).sum(2, keepdim=True)
        return torch.cat([rows, -shift], 2)

    def colours(self, parameters: Tensor) -> Tensor:
        """Matrices ``(B, 3, 3)`` of colours: lightness times (the grey part, and saturation times the turned rest)."""
        lightness, saturation, hue = parameters[:, 6:9].unbind(1)
        grey = parameters.new_full((3, 3), 1 / 3)
        rest = torch.eye(3, dtype=parameters.dtype, device=parameters.device) - grey
        cross = parameters.new_tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        turned = hue.cos()[:, None, None] * rest + hue.sin()[:, None, None] * cross
        return lightness.exp()[:, None, None] * (grey + saturation.exp()[:, None, None] * turned)

    def __call__(self, images: Tensor, masks: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        # Mixed precision would round the places of pixels, by a tenth of a pixel in 64.
        with torch.autocast(images.device.type, enabled=False):
            return self._transformed(images, masks, parameters)

    def _transformed(self, images: Tensor, masks: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([images, masks], 1).to(parameters)
        affine = self.affine(parameters, (both.shape[2], both.shape[3]))
        places = F.affine_grid(affine, list(both.shape), align_corners=False)
        moved = F.grid_sample(both, places, align_corners=False)
        still = (parameters[:, :6] == 0).all(1)[:, None, None, None]
        moved = both.where(still, moved)  # exactly, not but for rounding
        images, masks = moved[:, :-1], moved[:, -1:]
        if images.shape[1] == 3:
            coloured = (self.colours(parameters)[..., None, None] * images[:, None]).sum(2)
        else:
            coloured = parameters[:, 6, None, None, None].exp() * images
        plain = (parameters[:, 6:] == 0).all(1)[:, None, None, None]
        return images.where(plain, coloured.clamp(0, 1)), masks
