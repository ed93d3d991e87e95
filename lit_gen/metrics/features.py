"""Frozen feature extractors: what FID, KID and the rest measure images with.

A score means nothing without its extractor, so each one states what it is (``description``) and identifies its weights
(``digest``); both go into the score's receipt.
"""

import hashlib
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self, cast, runtime_checkable

import torch
from torch import Tensor, nn

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Features(NamedTuple):
    """What an extractor sees in a batch of images."""

    features: Tensor  # (B, D) float32
    logits: Tensor | None  # (B, K) float32 class logits, None when the extractor does not classify


class FeatureExtractor(nn.Module, ABC):
    """Abstract frozen map from images in [0, 1] to features.

    A subclass hands its network to ``__init__`` and implements ``extract``. The network is frozen in place: float32,
    evaluation mode (``train()`` does not leave it), no gradients, no autocast.

    Args:
        network: the network whose weights the digest covers.
        name: what it is, in a few words.
        num_features: D, the width of the features.
        num_classes: K, the number of class logits, or None if there are none.
        resize: how images are resized on the way to the network, "none" if they are not.
        dtype: the type images are brought to.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        num_features: int,
        num_classes: int | None = None,
        resize: str = "none",
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.network = network.float().requires_grad_(False)
        self.name = name
        self.num_features = num_features
        self.num_classes = num_classes
        self.resize = resize
        self.dtype = dtype
        self.eval()

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """Map checked float32 images ``(B, C, H, W)`` in [0, 1] to features."""

    @property
    def description(self) -> str:
        """What the features are, how images are resized and to which type they are brought."""
        return f"{self.name}, resize: {self.resize}, dtype: {self.dtype}"

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the SHA-256 of the description and all weights and buffers."""
        sha = hashlib.sha256(self.description.encode())
        for key, value in sorted(self.network.state_dict().items()):
            sha.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()[:16]

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode whatever ``mode`` is: dropout or batch statistics would change the scores."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Features:
        """Extract features.

        Args:
            images: ``(B, C, H, W)``, or ``(B, C, D, H, W)`` where the network takes voxels; in [0, 1].

        Returns:
            Features ``(B, D)`` and logits ``(B, K)`` or None, in float32.

        Raises:
            ValueError: if the images are not finite floating-point batches in [0, 1].
        """
        check_images(images)
        # The network is the caller's own module: training it elsewhere may have switched its mode.
        self.network.eval()
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self.extract(images.float().clamp(0, 1))
        return Features(features.float(), None if logits is None else logits.float())


def check_images(images: Tensor) -> None:
    """Raise ValueError, with what was got and wanted, unless ``images`` is a finite float batch in [0, 1]."""
    if images.ndim not in (4, 5) or len(images) == 0:
        raise ValueError(f"images must be a batch of shape (B, C, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], got {images.dtype}; divide uint8 images by 255")
    low, high = (bound.item() for bound in images.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("images hold NaN or infinity; has the model diverged?")
    if low < -1e-3 or high > 1 + 1e-3:  # resizing and half precision may overshoot by a little
        raise ValueError(
            f"images must lie in [0, 1], got values from {low:.4g} to {high:.4g}; rescale tanh outputs by (x + 1) / 2"
        )


class Pixels(FeatureExtractor):
    """The flattened pixels themselves, without weights or logits: a baseline, not a perceptual measure.

    Args:
        image_shape: ``(C, H, W)``.

    Example:
        >>> import torch
        >>> Pixels((1, 2, 2))(torch.full((3, 1, 2, 2), 0.5)).features.shape
        torch.Size([3, 4])
    """

    def __init__(self, image_shape: Sequence[int]) -> None:
        super().__init__(nn.Flatten(), name="pixels", num_features=math.prod(image_shape))
        self.image_shape = tuple(image_shape)

    def extract(self, images: Tensor) -> Features:
        """Flatten images of the declared shape."""
        check_image_shape(images, self.image_shape)
        return Features(self.network(images), None)


@runtime_checkable
class ImageClassifier(Protocol):
    """What ``ClassifierFeatures`` asks of a module; ``lit_gen.models.Classifier`` has it, any class may."""

    image_shape: tuple[int, ...]
    num_features: int
    num_classes: int

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations ``(B, num_features)`` of images ``(B, C, H, W)`` in [0, 1]."""
        ...

    def classify(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of penultimate activations."""
        ...


class ClassifierFeatures(FeatureExtractor):
    """Penultimate activations and logits of a classifier, for data of which Inception knows nothing.

    Scores compare only under the very same classifier; the digest in the receipt sees to that.

    Args:
        classifier: a trained module that has the members of ``ImageClassifier``. It is frozen in place.

    Raises:
        TypeError: if a member is missing.
    """

    def __init__(self, classifier: nn.Module) -> None:
        if not isinstance(classifier, ImageClassifier):
            raise TypeError(
                f"got {type(classifier).__name__}, which is no ImageClassifier: it needs image_shape, num_features, "
                "num_classes, features(images) and classify(features), as lit_gen.models.Classifier has them"
            )
        super().__init__(
            cast(nn.Module, classifier),
            name=f"{type(classifier).__name__} of {classifier.num_classes} classes, penultimate layer",
            num_features=classifier.num_features,
            num_classes=classifier.num_classes,
        )

    def extract(self, images: Tensor) -> Features:
        """Return penultimate activations and logits."""
        classifier = cast(ImageClassifier, self.network)
        check_image_shape(images, classifier.image_shape)
        features = classifier.features(images)
        return Features(features, classifier.classify(features))


def check_image_shape(images: Tensor, image_shape: Sequence[int]) -> None:
    """Raise ValueError unless ``images`` is a batch of images of ``image_shape``."""
    if images.shape[1:] != tuple(image_shape):
        raise ValueError(
            f"this extractor takes images of shape {tuple(image_shape)}, got {tuple(images.shape[1:])}: use one made "
            "for these data"
        )


class InceptionV3(FeatureExtractor):
    """The TensorFlow Inception-v3 of 2015-12-05, with which published FID, KID and Inception Scores are computed.

    Weights and network are those of torch-fidelity (the extra ``lit-gen[fid]``). Images are rounded to uint8, grey
    ones repeated to three channels, and resized within the network by TensorFlow 1's bilinear rule. Features are the
    2048 pooled units; logits leave out the output bias, as the Inception Score's authors do.

    Args:
        weights_path: the file of weights; None downloads it once (91 MB) into the PyTorch hub folder.

    Raises:
        ModuleNotFoundError: if torch-fidelity is not installed.
        FileNotFoundError: if there are no weights at ``weights_path``, or they cannot be downloaded.
        ValueError: if the file does not hold these weights.
    """

    def __init__(self, weights_path: str | None = None) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ModuleNotFoundError(
                "InceptionV3 needs torch-fidelity, which is not installed: pip install torch-fidelity (or the extra "
                "lit-gen[fid]), or measure with ClassifierFeatures"
            ) from error
        path = _downloaded_inception_weights() if weights_path is None else Path(weights_path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no Inception weights at {path}: give the path of the file or none to download it")
        try:
            # torch-fidelity unpickles the file without restriction: make sure first that it holds nothing but tensors.
            torch.load(path, map_location="cpu", weights_only=True)
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path))
        except (RuntimeError, AttributeError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{path} does not hold the Inception weights of 2015-12-05; delete it and let it be downloaded again"
            ) from error
        super().__init__(
            network,
            name="Inception-v3 of 2015-12-05 (torch-fidelity), 2048 pooled features",
            num_features=2048,
            num_classes=1008,
            resize="bilinear to 299x299 (TensorFlow 1)",
            dtype="uint8 images, float32 network",
        )

    def extract(self, images: Tensor) -> Features:
        """Return the pooled features and the logits without bias."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"InceptionV3 takes grey or colour images (B, 1 or 3, H, W), got {tuple(images.shape)}: measure other "
                "data with ClassifierFeatures"
            )
        pixels = (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        features, logits = self.network(pixels)
        return Features(features, logits)


def _downloaded_inception_weights() -> Path:
    """Return the path of the weights in the PyTorch hub folder, downloading and verifying them if need be."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=INCEPTION_SHA256)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"the Inception weights could not be downloaded ({error}): fetch {URL_INCEPTION_V3} where there is a "
                "network and give its path (weights_path=PATH; features=inception:PATH of GenerationMetrics), or "
                "measure with ClassifierFeatures"
            ) from error
    return path
