"""Comparators: networks, fixed while a model trains, whose layers say how alike two images are.

Dosovitskiy & Brox 2016, Generating images with perceptual similarity metrics based on deep networks
(https://arxiv.org/abs/1602.02644), compare by AlexNet, and by an Exemplar-CNN, which needs no labels: Dosovitskiy,
Fischer, Springenberg, Riedmiller & Brox 2014, Discriminative unsupervised feature learning with exemplar convolutional
neural networks (https://arxiv.org/abs/1406.6909).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from lit_gen.networks.network import Recorded, Shape

TrainingImages = Callable[[int], Tensor]
"""n -> up to n training images, ``(n, C, H, W)`` in [0, 1]."""


class Comparator(Recorded, nn.Module, ABC):
    """A frozen network in eval mode, whatever the mode of its owner: gradients pass through it to the images.

    A subclass gives :meth:`layers`, and calls :meth:`freeze` once it has all its parts.

    Args:
        image_shape: ``(C, H, W)``.
    """

    sizes = 1

    def __init__(self, image_shape: Shape) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)

    @abstractmethod
    def layers(self, images: Tensor) -> list[Tensor]:
        """Activations of each layer, the lowest first: ``(B, C, H, W)`` in [0, 1] -> ``(B, ...)`` each."""

    def start(self, training_images: TrainingImages) -> None:
        """Called when a training starts; a comparator that learns from the data does so once in its life."""

    def freeze(self) -> None:
        """No parameter takes a gradient, and modes stay those of evaluation."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """In eval mode always: statistics of batch normalisation must not follow the images compared."""
        return super().train(False)

    @torch.no_grad()
    def layer_shapes(self) -> list[Shape]:
        """Shape of each layer's activations, without the batch."""
        device = next((weight.device for weight in self.parameters()), None)
        images = torch.zeros(1, *self.image_shape, device=device)
        return [tuple(layer.shape[1:]) for layer in self.layers(images)]


class PooledConvolutions(nn.Module):
    """Layers of a 3x3 convolution, a rectifier and a maximum over 2x2 pixels each.

    Args:
        image_shape: ``(C, H, W)``.
        channels: feature maps of each layer, or those of the first alone: doubled twice at most, until 2 or 3 pixels a
            side are left.

    Raises:
        ValueError: no images, or too small for so many layers.
    """

    def __init__(self, image_shape: Shape, channels: Sequence[int] | int) -> None:
        super().__init__()
        if len(image_shape) != 3:
            raise ValueError(f"a comparator takes images (channels, height, width), got {tuple(image_shape)}")
        colours, height, width = image_shape
        levels = max(1, int(math.log2(max(2, min(height, width)) / 2)))
        maps = [channels * 2 ** min(level, 2) for level in range(levels)] if isinstance(channels, int) else channels
        if not maps or min(height, width) >> len(maps) < 1:
            raise ValueError(
                f"images of {tuple(image_shape)} cannot be halved by {len(maps)} layers; give 1 to"
                f" {min(height, width).bit_length() - 1} entries in `channels`"
            )
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            for before, after in pairwise([colours, *maps])
        )
        self.output_shape = (maps[-1], height >> len(maps), width >> len(maps))

    def forward(self, images: Tensor) -> list[Tensor]:
        """What each layer makes of images in [0, 1]."""
        found = []
        x = 2 * images - 1
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found


class RandomComparator(Comparator):
    """Convolutions with random weights, which nothing trains: they know edges and tolerate small shifts, no more.

    Args:
        image_shape: ``(C, H, W)``.
        channels: feature maps of each layer, or those of the first alone.
        seed: of the weights, apart from all other random numbers.
    """

    def __init__(self, image_shape: Shape, channels: Sequence[int] | int = 32, seed: int = 0) -> None:
        super().__init__(image_shape)
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.convolutions = PooledConvolutions(self.image_shape, channels)
        self.freeze()

    def layers(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = self.convolutions(images)
        return found


class ExemplarComparator(Comparator):
    """Learns to compare from the training images alone, before the model trains: no labels, no file, no download.

    Each of some training images is a class of its own, seen in random positions, sizes, rotations and contrasts, and
    the network learns to tell them apart (Dosovitskiy et al. 2014, section 2). What it learns is what makes an image
    this image, wherever it stands. The last layer is one of rectified units above the convolutions.

    Departures from the paper: whole images in place of patches, fewer and smaller layers, Adam.

    Args:
        image_shape: ``(C, H, W)``.
        channels: feature maps of each layer, or those of the first alone.
        num_features: units of the last layer.
        exemplars: training images that become classes, at most.
        steps: of the training.
        batch_size: transformed images in a step.
        learning_rate: of Adam, which falls to zero by a cosine.
        max_shift: largest shift, as a share of the side.
        seed: of the weights and the transformations, apart from all other random numbers.
    """

    taught: Tensor
    accuracy: Tensor

    def __init__(
        self,
        image_shape: Shape,
        channels: Sequence[int] | int = 32,
        num_features: int = 128,
        exemplars: int = 300,
        steps: int = 600,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        max_shift: float = 0.15,
        seed: int = 0,
    ) -> None:
        super().__init__(image_shape)
        for name, value, least in (("exemplars", exemplars, 2), ("steps", steps, 1), ("batch_size", batch_size, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.exemplars = exemplars
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_shift = max_shift
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.convolutions = PooledConvolutions(self.image_shape, channels)
            flat = math.prod(self.convolutions.output_shape)
            self.features = nn.Sequential(nn.Flatten(), nn.Linear(flat, num_features), nn.ReLU())
        self.register_buffer("taught", torch.tensor(False))
        # The share of the last hundred batches that it told apart, known once it is taught.
        self.register_buffer("accuracy", torch.tensor(0.0))
        self.freeze()

    def layers(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = self.convolutions(images)
        return [*found, self.features(found[-1])]

    def start(self, training_images: TrainingImages) -> None:
        """Learn, once in the life of the comparator; it takes seconds for digits."""
        if bool(self.taught):
            return
        images = training_images(self.exemplars)
        device = images.device
        with torch.random.fork_rng(devices=[device] if device.type != "cpu" else []), torch.enable_grad():
            torch.manual_seed(self.seed)
            self._learn(images.float())
        self.freeze()
        self.taught.fill_(True)

    def _learn(self, images: Tensor) -> None:
        self.requires_grad_(True)
        linear = self.features[1]
        assert isinstance(linear, nn.Linear)
        output = nn.Linear(linear.out_features, len(images)).to(images.device)
        optimizer = torch.optim.Adam([*self.parameters(), *output.parameters()], lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        right: list[Tensor] = []
        for _ in range(self.steps):
            chosen = torch.randint(len(images), (self.batch_size,), device=images.device)
            logits = output(self.layers(self.transform(images[chosen]))[-1])
            optimizer.zero_grad()
            cross_entropy(logits, chosen).backward()
            optimizer.step()
            schedule.step()
            right.append((logits.argmax(1) == chosen).float().mean().detach())
        optimizer.zero_grad()
        self.accuracy.copy_(torch.stack(right[-100:]).mean())

    def transform(self, images: Tensor) -> Tensor:
        """Each image in a random position, size, rotation and contrast: ``(B, C, H, W)`` in [0, 1] -> the same."""
        count, device = len(images), images.device

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(count, device=device) * (high - low) + low

        angle, scale = uniform(-0.35, 0.35), torch.exp(uniform(-0.25, 0.25))
        cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
        right, down = (2 * uniform(-self.max_shift, self.max_shift) for _ in range(2))
        maps = torch.stack([cosine, -sine, right, sine, cosine, down], 1).view(count, 2, 3)
        grid = affine_grid(maps, list(images.shape), align_corners=False)
        moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
        contrast, brightness = (part.view(-1, 1, 1, 1) for part in (uniform(0.7, 1.3), uniform(-0.1, 0.1)))
        mean = moved.mean((1, 2, 3), keepdim=True)
        return (contrast * (moved - mean) + mean + brightness).clamp(0, 1)


ComparatorFactory = Callable[[Shape], Comparator]
