import json
from dataclasses import FrozenInstanceError, replace

import pytest

from lit_gen.metrics import Receipt

FID = Receipt(
    metric="fid",
    value=12.5,
    std=None,
    extractor="0123456789abcdef",
    extractor_description="pixels, resize: none, dtype: float32",
    num_real=10_000,
    num_generated=10_000,
    split="MNIST/test",
    resize="none",
    dtype="float32",
    settings={"image_shape": "1x28x28"},
)


def test_survives_json():
    assert Receipt.from_dict(json.loads(json.dumps(FID.to_dict()))) == FID


def test_like_receipts_compare():
    assert FID.difference(replace(FID, value=10.0)) == 2.5
    assert FID.difference(replace(FID, value=12.5, std=0.1)) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metric": "kid"}, "metric: 'fid' and 'kid'"),
        ({"extractor": "fedcba9876543210"}, "extractor: '0123456789abcdef' and 'fedcba9876543210'"),
        ({"num_real": 5_000}, "num_real: 10000 and 5000"),
        ({"num_generated": 5_000}, "num_generated: 10000 and 5000"),
        ({"split": "MNIST/train"}, "split: 'MNIST/test' and 'MNIST/train'"),
        ({"resize": "bilinear"}, "resize: 'none' and 'bilinear'"),
        ({"dtype": "uint8"}, "dtype: 'float32' and 'uint8'"),
        ({"settings": {"image_shape": "1x32x32"}}, "settings.image_shape: '1x28x28' and '1x32x32'"),
        ({"settings": {"image_shape": "1x28x28", "k": 3}}, "settings.k: None and 3"),
    ],
)
def test_unlike_receipts_do_not(change, named):
    with pytest.raises(ValueError, match="cannot be compared") as info:
        FID.difference(replace(FID, **change))
    assert named in str(info.value)


def test_every_unlike_condition_is_named():
    other = replace(FID, num_real=1, split="CIFAR10/test")
    assert FID.unlike(other) == {"num_real": (10_000, 1), "split": ("MNIST/test", "CIFAR10/test")}


def test_is_frozen():
    with pytest.raises(FrozenInstanceError):
        FID.value = 0.0


def test_what_is_no_receipt_is_refused():
    values = FID.to_dict()
    values["colour"] = values.pop("split")
    with pytest.raises(ValueError, match=r"missing \['split'\], unknown \['colour'\]"):
        Receipt.from_dict(values)
