"""What tests of compiled models share."""

import copy
from typing import Any

import torch
from torch import Tensor

from lit_gen.models import DRAW


def assert_a_compiled_step_is_the_step(model: DRAW, images: Tensor, condition: Any = None) -> None:
    """Loss and gradients are those of the model as it is, one graph serves every step, and copies stand alone."""
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    def loss_and_gradients(drawing: DRAW) -> tuple[Tensor, list[Tensor | None]]:
        torch.manual_seed(0)
        loss = drawing.objective(images, condition).loss.mean()
        drawing.zero_grad()
        loss.backward()
        return loss, [parameter.grad for parameter in drawing.parameters()]

    torch._dynamo.reset()  # it remembers code that an earlier test had it leave alone
    plain = copy.deepcopy(model)
    model.compile_parts(backend=backend)
    (loss, gradients), (wanted_loss, wanted) = loss_and_gradients(model), loss_and_gradients(plain)
    torch.testing.assert_close(loss, wanted_loss)
    torch.testing.assert_close(gradients, wanted)
    # The states of the first step are one state in all rows.
    assert 1 <= len(graphs) <= 2 < model.steps, "a graph serves all steps but the first"

    made = len(graphs)
    model.sample(len(images), condition)
    assert len(graphs) == made, "images from the prior need no compilation"
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.zero_()
    assert not torch.equal(loss_and_gradients(moved)[0], loss), "a copy steps with weights of its own"
    torch.testing.assert_close(loss_and_gradients(model)[0], loss)
