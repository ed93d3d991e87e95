"""A classifier of this package as comparator."""

import json
from typing import Any

from torch import Tensor

from lit_gen.models.checkpoint import build_model, load_model, stored_hyperparameters
from lit_gen.models.classifier import Classifier
from lit_gen.networks import Comparator, Shape


class ClassifierComparator(Comparator):
    """Compares by the layers of a :class:`Classifier` that has been trained: its convolutions, features and logits.

    The classifier becomes part of the model: its specification and its weights go into the checkpoints of that model,
    which need its own checkpoint no more.

    Args:
        image_shape: ``(C, H, W)``, that of the images the classifier was trained on.
        classifier: checkpoint of a :class:`Classifier`, or the folder of its run. What a checkpoint stores in place of
            the path is the specification of the classifier in JSON.

    Raises:
        ValueError: a checkpoint of something else, or of a classifier of images of another shape.
        FileNotFoundError: there is no such checkpoint.
    """

    def __init__(self, image_shape: Shape, classifier: str) -> None:
        super().__init__(image_shape)
        # In JSON, because the command line would add defaults to a dictionary that names a class.
        if classifier.startswith("{"):
            body = build_model(json.loads(classifier))
        else:
            try:
                body = load_model(classifier)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"{error}. A comparator needs a classifier that has been trained (lit-gen fit -c"
                    " classifier/digits); ExemplarComparator needs none"
                ) from error
        if not isinstance(body, Classifier):
            raise ValueError(f"{str(classifier)!r} holds a {type(body).__name__}; give the checkpoint of a Classifier")
        if body.image_shape != self.image_shape:
            raise ValueError(
                f"the classifier was trained on images of shape {body.image_shape}, these are {self.image_shape}; train"
                " one on these data, or set data.image_size and data.channels"
            )
        self.body = body
        self.freeze()

    def layers(self, images: Tensor) -> list[Tensor]:
        return self.body.layers(images)

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """With the specification of the classifier in place of its file."""
        specification = super().specification(skip)
        specification["init_args"]["classifier"] = json.dumps(stored_hyperparameters(self.body))
        return specification
