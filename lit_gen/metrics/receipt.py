"""The receipt of a score: everything that must be equal before two scores may be compared."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Setting = int | float | str


@dataclass(frozen=True)
class Receipt:
    """A score and how it was measured.

    Attributes:
        metric: name of the score, such as "fid".
        value: the score.
        std: spread over subsets or splits, None for scores that have none.
        extractor: digest of the feature extractor.
        extractor_description: what the extractor is.
        num_real: real images used, 0 for a score that uses none.
        num_generated: generated images used.
        split: data set and split of the real images, such as "MNIST/test".
        resize: how the extractor resizes images.
        dtype: the type the extractor brings images to.
        settings: the metric's own, such as k, subset size, number of splits, and the shape of the images.
    """

    metric: str
    value: float
    std: float | None
    extractor: str
    extractor_description: str
    num_real: int
    num_generated: int
    split: str
    resize: str
    dtype: str
    settings: dict[str, Setting] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Receipt":
        """Build a receipt from what ``to_dict`` returned.

        Raises:
            ValueError: if fields are missing or unknown.
        """
        names = {f.name for f in fields(cls)}
        missing, unknown = sorted(names - set(values)), sorted(set(values) - names)
        if missing or unknown:
            raise ValueError(
                f"not a receipt: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}; was it written by "
                "another version? Measure again"
            )
        return cls(**values)

    def unlike(self, other: "Receipt") -> dict[str, tuple[Any, Any]]:
        """Return the conditions in which two receipts differ, as ``{field: (own, other's)}``."""
        conditions = [f.name for f in fields(self) if f.name not in ("value", "std", "settings")]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in conditions}
        for name in sorted(self.settings.keys() | other.settings.keys()):
            pairs[f"settings.{name}"] = (self.settings.get(name), other.settings.get(name))
        return {name: (mine, theirs) for name, (mine, theirs) in pairs.items() if mine != theirs}

    def difference(self, other: "Receipt") -> float:
        """Return ``self.value - other.value``.

        Raises:
            ValueError: if the scores were not measured alike, naming every condition in which they differ.
        """
        unlike = self.unlike(other)
        if unlike:
            conditions = "; ".join(f"{name}: {mine!r} and {theirs!r}" for name, (mine, theirs) in unlike.items())
            raise ValueError(
                f"{self.metric} {self.value:.6g} and {other.metric} {other.value:.6g} cannot be compared, they were "
                f"measured unlike ({conditions}): measure both in the same way"
            )
        return self.value - other.value
