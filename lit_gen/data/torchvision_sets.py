"""What the data sets share that torchvision downloads and reads."""

import errno
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torchvision.datasets import VisionDataset

from lit_gen.data.base import ImageDataModule
from lit_gen.data.loader import Split


class TorchvisionDataModule(ImageDataModule):
    """A data set in torchvision's folder layout, downloaded into it by torchvision when it is not there.

    Args:
        root: folder that holds the data set as torchvision lays it out, or into which it is downloaded.
    """

    required: ClassVar[tuple[str, ...]]
    """Files or folders below ``root`` without which the set is not there."""

    def __init__(self, root: str = "data", **kwargs: Any) -> None:
        root = str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        self.root = Path(root).expanduser()
        super().__init__(**kwargs)

    @abstractmethod
    def dataset(self, part: Split, download: bool = False) -> VisionDataset:
        """Make torchvision's data set of an official part."""

    def copies(self, name: str) -> list[Path]:
        """Where a required file may lie, in one form or another."""
        return [self.root / name]

    def missing(self) -> list[str]:
        """Names of required files that are not there in any form."""
        return [name for name in self.required if not any(path.exists() for path in self.copies(name))]

    def prepare_data(self) -> None:
        """Download what is missing.

        Raises:
            FileNotFoundError: if there is no network, with what to put where by hand.
            OSError: if the disk is full or read-only.
        """
        missing = self.missing()
        if not missing:
            return
        try:
            with self._explained(f"{self.name} is not in {self.root} and could not be downloaded"):
                for part in self.info.official:
                    self.dataset(part, download=True)
        except BaseException:
            # Half a file must not pass for the data set when the next run looks.
            for path in (path for name in missing for path in self.copies(name) if path.is_file()):
                path.unlink()
            raise

    def require(self) -> None:
        """Check that all files are there.

        Raises:
            FileNotFoundError: if one is not.
        """
        if missing := self.missing():
            raise FileNotFoundError(f"{self.name} is not in {self.root} (no {missing[0]}). {self._remedy()}")

    def read(self, part: Split) -> Any:
        """Read torchvision's data set of an official part from files that are there.

        Raises:
            FileNotFoundError: if they are not there, or damaged.
        """
        self.require()
        with self._explained(f"{self.name} in {self.root} is incomplete or damaged: delete it and fetch it again"):
            return self.dataset(part)

    def _remedy(self) -> str:
        return (
            f"Run once with a network, or put {', '.join(self.missing() or self.required)} there by hand, "
            "or name the folder that holds them with --data.root (root=... in Python)"
        )

    @contextmanager
    def _explained(self, trouble: str) -> Iterator[None]:
        """Turn whatever torchvision, urllib, archives and the system raise into one message with the remedy."""
        remedy = self._remedy()
        try:
            yield
        except Exception as error:
            reasons: list[BaseException] = [error]
            while (cause := reasons[-1].__cause__ or reasons[-1].__context__) is not None:
                reasons.append(cause)
            codes = {reason.errno for reason in reasons if isinstance(reason, OSError)}
            if codes & {errno.ENOSPC, errno.EDQUOT}:
                raise OSError(
                    f"{self.name}: no space left in {self.root}. Free some, or name another folder with --data.root"
                ) from error
            if codes & {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise PermissionError(
                    f"{self.name}: no access to {self.root} ({error}). Name another folder with --data.root"
                ) from error
            reason = " ".join(str(error).split())
            raise FileNotFoundError(f"{trouble} ({reason}). {remedy}") from error
