"""The digits that come with scikit-learn: real handwriting, no download."""

import torch

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.loader import Split


class Digits(ImageDataModule):
    """1,797 handwritten digits of 8x8, embedded in scikit-learn: 1,297 train, 200 val, 300 test (our own fixed split).

    Source: test part of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository (1998).
    The 17 grey levels are stretched to 0..255.

    Example:
        >>> data = Digits(batch_size=50, binarization="stochastic")
        >>> data.image_shape, data.num_classes, data.num_train
        ((1, 8, 8), 10, 1297)
        >>> images, targets = next(iter(data.train_dataloader()))
        >>> images.shape, targets.shape
        (torch.Size([50, 1, 8, 8]), torch.Size([50]))
    """

    def describe(self) -> DataInfo:
        return DataInfo((1, 8, 8), num_classes=10, train_size=1797, val_size=200, test_size=300, official=("train",))

    def load(self, part: Split) -> ImageSet:
        from sklearn.datasets import load_digits  # takes a second to import, and no other data set needs it

        digits = load_digits()
        images = (torch.from_numpy(digits.images) * (255 / 16)).round().to(torch.uint8)
        return ImageSet(images[:, None], torch.from_numpy(digits.target).long())
