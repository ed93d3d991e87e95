"""Data sets as LightningDataModules; they know no model."""

from lit_gen.data.arrays import Arrays
from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.captioned_digits import CaptionedDigits
from lit_gen.data.captioned_folder import CaptionedFolder
from lit_gen.data.celeba import CelebA
from lit_gen.data.cifar10 import CIFAR10
from lit_gen.data.coco import CocoCaptions
from lit_gen.data.digits import Digits
from lit_gen.data.image_folder import ImageFolder
from lit_gen.data.loader import Batch, BatchLoader, Binarization
from lit_gen.data.mnist import KMNIST, MNIST, FashionMNIST
from lit_gen.data.modelnet import ModelNet
from lit_gen.data.omniglot import Omniglot
from lit_gen.data.rendered_chairs import RenderedChairs
from lit_gen.data.shape_views import ShapeViews, SyntheticChairs
from lit_gen.data.stacked_mnist import StackedMNIST
from lit_gen.data.stl10 import STL10
from lit_gen.data.svhn import SVHN
from lit_gen.data.svhn_numbers import SVHNNumbers
from lit_gen.data.synthetic import Synthetic
from lit_gen.data.synthetic_shapes import SyntheticShapes
from lit_gen.data.two_digits import TwoDigits
from lit_gen.data.views import ViewDataModule

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "STL10",
    "SVHN",
    "Arrays",
    "Batch",
    "BatchLoader",
    "Binarization",
    "CaptionedDigits",
    "CaptionedFolder",
    "CelebA",
    "CocoCaptions",
    "DataInfo",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "ImageSet",
    "ModelNet",
    "Omniglot",
    "RenderedChairs",
    "SVHNNumbers",
    "ShapeViews",
    "StackedMNIST",
    "Synthetic",
    "SyntheticChairs",
    "SyntheticShapes",
    "TwoDigits",
    "ViewDataModule",
]
