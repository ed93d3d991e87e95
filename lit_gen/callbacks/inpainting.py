"""Images of which a part is drawn anew, given the rest."""

from typing import Any, Literal

import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import FirstBatchCallback, first, positive
from lit_gen.callbacks.logging import image_grid, log_image
from lit_gen.models.base import Inpaints

Region = Literal["left", "right", "top", "bottom", "center"]


def unknown_pixels(region: Region, size: tuple[int, int]) -> Tensor:
    """``(H, W)`` bool: half of the image, or the quarter of it that lies in the middle.

    >>> unknown_pixels("bottom", (2, 3)).int().tolist()
    [[0, 0, 0], [1, 1, 1]]
    """
    height, width = size
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    inside = {
        "left": x < width // 2,
        "right": x >= (width + 1) // 2,
        "top": y < height // 2,
        "bottom": y >= (height + 1) // 2,
        "center": (2 * (2 * y + 1 - height).abs() < height) & (2 * (2 * x + 1 - width).abs() < width),
    }
    return inside[region].expand(height, width)


class Inpainting(FirstBatchCallback):
    """Logs images of the first batch, what is known of them, and completions, as ``test/inpainting``.

    A row has the image, what is known on grey, and ``num_draws`` completions, each from its own noise.

    Args:
        region: what is not known: a half, or the middle.
        num_images: rows.
        num_draws: completions of each image.
        every_n_epochs: act in every n-th epoch of a fit, and in the last; None: in tests alone.
        seed: of the noise.

    Raises:
        ValueError: an unknown region.
    """

    capability = Inpaints

    def __init__(
        self,
        region: Region = "right",
        num_images: int = 8,
        num_draws: int = 4,
        every_n_epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs or 1, seed)
        if region not in ("left", "right", "top", "bottom", "center"):
            raise ValueError(f"region must be left, right, top, bottom or center, got {region!r}")
        self.region: Region = region
        self.num_images = positive("num_images", num_images)
        self.num_draws = positive("num_draws", num_draws)
        self.tests_alone = every_n_epochs is None

    def show(self, trainer: Any, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        if self.tests_alone and stage != "test":
            return
        images = images[: self.num_images]
        condition = first(condition, len(images))
        size = (images.shape[-2], images.shape[-1])
        known = ~unknown_pixels(self.region, size).to(images.device)
        draws = [model.inpaint(images, known, condition) for _ in range(self.num_draws)]
        grey = torch.where(known, images, torch.full_like(images, 0.5))
        rows = torch.stack([images, grey, *draws], 1).flatten(0, 1)
        log_image(trainer, f"{stage}/inpainting", image_grid(rows, 2 + self.num_draws))
