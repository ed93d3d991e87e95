import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch


def states_of_global_generators():
    # The legacy global generator is the very one that must stay as it was.
    numpy_state = np.random.get_state()[1]  # noqa: NPY002
    return torch.get_rng_state().tolist(), numpy_state.tolist(), random.getstate()


@pytest.fixture
def generators_untouched():
    """A context that fails if what runs in it draws from a global random generator."""

    @contextmanager
    def context():
        before = states_of_global_generators()
        yield
        assert states_of_global_generators() == before

    return context
