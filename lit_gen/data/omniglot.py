"""Omniglot: handwritten characters of fifty alphabets."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.loader import Split
from lit_gen.data.torchvision_sets import TorchvisionDataModule

CHARACTERS = {"train": 964, "test": 659}


class Omniglot(TorchvisionDataModule):
    """Handwritten characters (Lake et al. 2015): the 30 background alphabets to train on, the 20 others to test on.

    18,280 train, 1,000 val, 13,180 test, 105x105 as stored; ink is 1. A target is a character: 964 of them in training,
    and 659 others, numbered after those, in test. Likelihoods do not compare with those on the 28x28 file of
    Burda et al. (2015), which has another split and was scaled otherwise.

    Besides torchvision's folder it reads ``root/omniglot/omniglot_images_{background,evaluation}_packed.npz``: bits
    (1 = ink) in ``images_packed``, and ``char_id``.

    Args:
        image_size: height and width, or one number for a square; None for 105x105 as stored.
    """

    # torchvision wants the archives too, beside what was unpacked from them.
    required = tuple(f"omniglot-py/images_{name}{end}" for name in ("background", "evaluation") for end in (".zip", ""))

    def __init__(self, root: str = "data", image_size: int | tuple[int, int] | None = 28, **kwargs: Any) -> None:
        super().__init__(root, image_size=image_size, **kwargs)

    def describe(self) -> DataInfo:
        folder = self.root / "omniglot"
        packed = {
            part: folder / f"omniglot_images_{name}_packed.npz"
            for part, name in (("train", "background"), ("test", "evaluation"))
        }
        self.packed = packed if super().missing() and all(path.exists() for path in packed.values()) else {}
        classes = sum(CHARACTERS.values())
        return DataInfo((1, 105, 105), num_classes=classes, train_size=19_280, val_size=1_000, test_size=13_180)

    def dataset(self, part: Split, download: bool = False) -> datasets.Omniglot:
        return datasets.Omniglot(self.root, background=part == "train", download=download)

    def missing(self) -> list[str]:
        return [] if self.packed else super().missing()

    def load(self, part: Split) -> ImageSet:
        images, targets = self._load_packed(part) if self.packed else self._load_folder(part)
        return ImageSet(images, targets + (CHARACTERS["train"] if part == "test" else 0))

    def _load_folder(self, part: Split) -> tuple[Tensor, Tensor]:
        stored = self.read(part)
        drawings, targets = zip(*(stored[i] for i in range(len(stored))), strict=True)
        ink = 255 - np.stack([np.asarray(drawing) for drawing in drawings])
        return torch.from_numpy(ink)[:, None], torch.tensor(targets)

    def _load_packed(self, part: Split) -> tuple[Tensor, Tensor]:
        path = self.packed[part]
        try:
            with np.load(path) as stored:
                bits = np.unpackbits(stored["images_packed"], axis=1)[:, : 105 * 105].reshape(-1, 1, 105, 105)
                characters = np.unique(stored["char_id"], return_inverse=True)[1]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} holds no packed drawings of 105x105 ({error}): fetch it again") from error
        return torch.from_numpy(bits * np.uint8(255)), torch.from_numpy(characters).long()

    def remarks(self) -> list[str]:
        return ["not the file of Burda et al. (2015)"] if self.image_shape[1:] == (28, 28) else []
