"""Two ranks that each saw a part, in unlike numbers of batches, report what one process reports."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn
from torchmetrics import Metric

from lit_gen.metrics import ClassifierFeatures, GenerationScores


class Linear(nn.Module):
    image_shape = (1, 2, 2)
    num_features = 4
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(4, 3)

    def features(self, images):
        return images.flatten(1)

    def classify(self, features):
        return self.output(features)


def make_scores():
    torch.manual_seed(0)
    return GenerationScores(
        ClassifierFeatures(Linear()),
        split="toy/test",
        metrics=("fid", "inception_score", "kid", "precision_recall", "density_coverage"),
        inception_score_splits=1,
        kid_subset_size=30,
    )


class Ranks:
    """Threads in the place of processes: gathers what each of them hands in, in the order of the calls.

    A rank that hands in fewer tensors than another breaks the barrier, where processes would wait for ever.
    """

    def __init__(self, world_size):
        self.barrier = Barrier(world_size, timeout=10)
        self.slots = [None] * world_size

    def connect(self, rank, scores):
        def gather(tensor, group):
            self.slots[rank] = tensor
            self.barrier.wait()
            gathered = list(self.slots)
            self.barrier.wait()
            return gathered

        for metric in scores.modules():
            if isinstance(metric, Metric):
                metric.dist_sync_fn = gather
                metric.distributed_available_fn = lambda: True


def test_two_ranks_report_what_one_process_does():
    torch.manual_seed(1)
    sides = [(torch.rand(30, 1, 2, 2), True), (torch.rand(30, 1, 2, 2) ** 2, False)]
    single = make_scores()
    ranks = Ranks(2)
    parts = [make_scores(), make_scores()]
    for rank, scores in enumerate(parts):
        ranks.connect(rank, scores)
    for images, real in sides:
        single.update(images, real)
        parts[0].update(images[:12], real)
        for batch in images[12:].split(7):
            parts[1].update(batch, real)

    expected = single.compute()
    with ThreadPoolExecutor(2) as pool:
        for receipts in pool.map(GenerationScores.compute, parts):
            assert receipts.keys() == expected.keys()
            for name, receipt in receipts.items():
                assert receipt.unlike(expected[name]) == {}
                assert receipt.value == pytest.approx(expected[name].value, rel=1e-9)
                assert receipt.std == pytest.approx(expected[name].std, abs=1e-12)
    # Afterwards each rank has its own part again and goes on.
    assert len(parts[0].kid.real_features) == 1
    assert len(parts[1].kid.real_features) == 3
