"""Line charts drawn with Pillow, which is there anyway."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Color = tuple[int, int, int]
INK: Color = (60, 60, 60)
GRID: Color = (225, 225, 225)
OVERSAMPLING = 2
"""Pillow draws lines without smoothing: draw larger, then shrink."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers within a range.

    >>> ticks(-13.0, 28.0)
    [-10.0, 0.0, 10.0, 20.0]

    Args:
        low: lower end.
        high: upper end, above it.
        count: wanted.
    """
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


class Chart:
    """A white picture on which panels are drawn.

    Args:
        width: in pixels.
        height: in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (OVERSAMPLING * width, OVERSAMPLING * height), "white")
        self.size = (width, height)

    def text(
        self, place: tuple[float, float], text: str, color: Color = INK, anchor: str = "lm", size: int = 13
    ) -> None:
        """Write ``text``; ``anchor`` says which point of it lies at ``place``, as in Pillow."""
        font = ImageFont.load_default(OVERSAMPLING * size)
        ImageDraw.Draw(self.image).text(self._scaled([place])[0], text, color, font, anchor)

    def line(self, points: Sequence[tuple[float, float]], color: Color, width: float = 1) -> None:
        """Connect the points."""
        ImageDraw.Draw(self.image).line(self._scaled(points), color, round(OVERSAMPLING * width), "curve")

    def area(self, points: Sequence[tuple[float, float]], color: Color, opacity: float) -> None:
        """Fill a polygon, letting what lies below shine through."""
        corners = self._scaled(points)
        left, top = (math.floor(min(along)) for along in zip(*corners, strict=True))
        right, bottom = (math.ceil(max(along)) + 1 for along in zip(*corners, strict=True))
        mask = Image.new("L", (right - left, bottom - top), 0)
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in corners], round(255 * opacity))
        self.image.paste(color, (left, top, right, bottom), mask)

    def tensor(self) -> Tensor:
        """The picture, ``(3, height, width)`` in [0, 1]."""
        shrunk = self.image.resize(self.size, Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(shrunk)).permute(2, 0, 1).float() / 255

    @staticmethod
    def _scaled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(OVERSAMPLING * x, OVERSAMPLING * y) for x, y in points]


class Panel:
    """A rectangle of a chart with coordinates of its own.

    Args:
        chart: to draw on.
        box: left, top, right and bottom edge, in pixels.
        x: range of the horizontal axis.
        y: range of the vertical axis, upwards.
    """

    def __init__(
        self, chart: Chart, box: tuple[int, int, int, int], x: tuple[float, float], y: tuple[float, float]
    ) -> None:
        self.chart, self.box, self.x, self.y = chart, box, x, y

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a point; points outside come to lie on the edge."""
        left, top, right, bottom = self.box
        along = min(max((x - self.x[0]) / (self.x[1] - self.x[0]), 0), 1)
        up = min(max((y - self.y[0]) / (self.y[1] - self.y[0]), 0), 1)
        return left + along * (right - left), bottom - up * (bottom - top)

    def curve(self, xs: Sequence[float], ys: Sequence[float], color: Color, width: float = 1.5) -> None:
        """A line through the points."""
        self.chart.line([self.place(x, y) for x, y in zip(xs, ys, strict=True)], color, width)

    def band(
        self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: Color, opacity: float = 0.3
    ) -> None:
        """The area between two lines."""
        upper = [self.place(x, y) for x, y in zip(xs, highs, strict=True)]
        lower = [self.place(x, y) for x, y in zip(xs, lows, strict=True)]
        self.chart.area(upper + lower[::-1], color, opacity)

    def x_ticks(self, values: Sequence[float]) -> None:
        """Vertical lines with their numbers below the panel."""
        for value in values:
            self.curve([value, value], self.y, GRID, 1)
            across, below = self.place(value, self.y[0])
            self.chart.text((across, below + 12), f"{value:g}", anchor="mm")

    def y_ticks(self, values: Sequence[float]) -> None:
        """Horizontal lines with their numbers left of the panel."""
        for value in values:
            self.curve(self.x, [value, value], GRID, 1)
            left, up = self.place(self.x[0], value)
            self.chart.text((left - 8, up), f"{value:g}", anchor="rm")
