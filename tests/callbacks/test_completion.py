"""Completion of half-seen shapes, and the nearest neighbour beside it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.callbacks import Completion
from lit_gen.callbacks.completion import intersection_over_union
from lit_gen.data import Arrays
from lit_gen.inference import observe_depth
from lit_gen.models import VAE, GenerativeModel
from lit_gen.models.base import CompletesShapes

SHAPE = (1, 4, 4, 4)


class Filler(GenerativeModel, CompletesShapes):
    """Fills whatever is unseen."""

    def __init__(self) -> None:
        super().__init__(SHAPE)

    def complete(self, voxels: Tensor, observed: Tensor, num_particles: int = 9, steps: int = 50) -> Tensor:
        return torch.where(observed, voxels, 0.5)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return torch.zeros(num_samples, *SHAPE)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


def shapes(count: int) -> Tensor:
    torch.manual_seed(count)
    return (torch.rand(count, *SHAPE) < 0.3).to(torch.uint8)


def measured(folder: Path, callback: Completion, data: Any) -> dict[str, float]:
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    model = Filler()
    results = trainer.test(model, data, verbose=False) if isinstance(data, pl.LightningDataModule) else None
    if results is None:
        results = trainer.test(model, dataloaders=data, verbose=False)
    return dict(results[0])


def iou(some: Tensor, others: Tensor) -> float:
    both, either = (some & others).flatten(1).sum(1), (some | others).flatten(1).sum(1)
    return torch.where(either > 0, both / either, 1.0).mean().item()


@pytest.mark.parametrize("every_nth", [1, 3])
def test_measures_against_a_plain_computation(every_nth: int, tmp_path: Path) -> None:
    train, test = shapes(30), shapes(11)
    data = Arrays(255 * train, None, 255 * test, None, val_size=5, batch_size=4)
    found = measured(tmp_path, Completion(every_nth=every_nth, num_shown=3), data)

    truth = test[::every_nth] == 1
    seen = observe_depth(truth.float(), "-y").observed
    completed = torch.where(seen, truth, True)
    assert found["test/completion_iou"] == pytest.approx(iou(completed, truth), abs=1e-6)
    assert found["test/completion_iou_unseen"] == pytest.approx(iou(completed & ~seen, truth & ~seen), abs=1e-6)
    stored = torch.cat([batch for batch, _ in data.train_dataloader()]) > 0.5
    differing = ((stored[None] != truth[:, None]) & seen[:, None]).flatten(2).sum(2)
    # Two training shapes may be equally near: any of the nearest is right.
    nearest = [
        {
            round(iou(torch.where(seen[n], truth[n], stored[k])[None], truth[n][None]), 5)
            for k in (row == row.min()).nonzero()[:, 0]
        }
        for n, row in enumerate(differing)
    ]
    low, high = (sum(pick(part) for part in nearest) / len(nearest) for pick in (min, max))
    assert low - 1e-4 <= found["test/completion_iou_nearest_neighbour"] <= high + 1e-4
    assert list(tmp_path.rglob("completion/*.png"))


def test_a_training_shape_is_its_own_nearest_neighbour(tmp_path: Path) -> None:
    train = shapes(30)
    data = Arrays(255 * train, None, 255 * train, None, val_size=0, batch_size=8)
    found = measured(tmp_path, Completion(), data)
    assert found["test/completion_iou_nearest_neighbour"] > 0.9
    assert found["test/completion_iou_nearest_neighbour"] > found["test/completion_iou"]


def test_without_a_data_module_there_is_no_baseline(tmp_path: Path) -> None:
    batches = [(part.float(), None) for part in shapes(8).split(4)]
    found = measured(tmp_path, Completion(), torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert set(found) == {"test/completion_iou", "test/completion_iou_unseen"}


def test_union_of_nothing() -> None:
    empty = torch.zeros(2, 3, dtype=torch.bool)
    full = torch.tensor([[False, False, False], [True, False, False]])
    assert intersection_over_union(empty, full).tolist() == [1, 0]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\)"):
        Completion(threshold=1)
    with pytest.raises(TypeError, match="VAE is none"):
        Completion().setup(pl.Trainer(default_root_dir=tmp_path, accelerator="cpu"), VAE((1, 8, 8)), "test")
