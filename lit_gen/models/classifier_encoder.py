"""An encoder that begins at the checkpoint of a classifier."""

import json
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lit_gen.models.checkpoint import build_model, load_model, stored_hyperparameters
from lit_gen.models.classifier import Classifier
from lit_gen.networks import PretrainedEncoder, Shape


class ClassifierEncoder(PretrainedEncoder):
    """The features of a :class:`Classifier` that has been trained, and a new head that turns them into the output.

    The classifier becomes part of the model: its specification and its weights, as they are by then, go into the
    checkpoints of that model, which need its own checkpoint no more.

    Args:
        input_shape: ``(C, H, W)``, that of the images the classifier was trained on.
        output_shape: shape of one output, without the batch.
        classifier: checkpoint of a :class:`Classifier`, or the folder of its run. What a checkpoint stores in place of
            the path is the specification of the classifier in JSON.
        hidden_dims: width of each hidden layer of the head; none makes it linear.
        frozen: whether the classifier stays as it is, or is trained further.

    Raises:
        ValueError: a checkpoint of something else, or of a classifier of images of another shape.
        FileNotFoundError: there is no such checkpoint.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        classifier: str,
        hidden_dims: Sequence[int] = (),
        frozen: bool = True,
    ) -> None:
        # In JSON, because the command line would add defaults to a dictionary that names a class.
        body = build_model(json.loads(classifier)) if classifier.startswith("{") else load_model(classifier)
        if not isinstance(body, Classifier):
            raise ValueError(f"{str(classifier)!r} holds a {type(body).__name__}; give the checkpoint of a Classifier")
        if body.image_shape != tuple(input_shape):
            raise ValueError(
                f"the classifier was trained on images of shape {body.image_shape}, these are {tuple(input_shape)};"
                " train one on these data, or set data.image_size and data.channels"
            )
        body.output = nn.Identity()  # type: ignore[assignment]  # it is of no use here, and would never learn
        super().__init__(input_shape, output_shape, body, body.num_features, hidden_dims, frozen)

    def features(self, x: Tensor) -> Tensor:
        """Those of the classifier: ``(B, C, H, W) -> (B, num_features)``."""
        return self._classifier.features(x)

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """With the specification of the classifier in place of its file."""
        specification = super().specification(skip)
        specification["init_args"]["classifier"] = json.dumps(stored_hyperparameters(self._classifier))
        return specification

    @property
    def _classifier(self) -> Classifier:
        assert isinstance(self.body, Classifier)
        return self.body
