"""MS-COCO: photographs of everyday scenes, each with five captions."""

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from lit_gen.data.base import ImageSet
from lit_gen.data.captioned import CaptionedFile, CaptionedFiles
from lit_gen.data.loader import Split

YEARS = ("2014", "2017")
MINI = ("coco_mini_captions.json", "coco_mini_images_min128.tar")


def read_coco(path: Path) -> dict[str, list[str]]:
    """Captions by name of the image file, from an annotation file in COCO's format.

    Captions lie under ``annotations`` by the number of their image, or within the entries of ``images``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such JSON, or says nothing of captions.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name an annotation file of COCO's captions (json)")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        names = {entry["id"]: entry["file_name"] for entry in stored["images"]}
        found: dict[str, list[str]] = {
            entry["file_name"]: list(entry.get("captions", [])) for entry in stored["images"]
        }
        for annotation in stored.get("annotations", []):
            found[names[annotation["image_id"]]].append(annotation["caption"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no annotation file of COCO's captions ({error!r}): fetch it again") from error
    captioned = {name: captions for name, captions in found.items() if captions}
    if not captioned:
        raise ValueError(f"{path} has no captions: name captions_*.json, not instances_*.json")
    return captioned


class CocoCaptions(CaptionedFiles):
    """MS-COCO (Lin et al. 2014; captions by Chen et al. 2015): photographs at 32x32, five captions each.

    Below ``root/coco``, or ``root`` itself, it finds ``annotations/captions_{train,val}{2014,2017}.json`` with the
    folders ``{train,val}{2014,2017}`` of images beside: the official validation images are tested on, and validation
    images are taken from the training ones. Other files are named with ``annotations`` and ``images``; without test
    files, a tenth is taken out for testing. One of the captions of an image is drawn in every epoch of training;
    evaluation takes the first. There is no download: see https://cocodataset.org.

    Args:
        root: folder that holds ``coco``.
        annotations: annotation file of the training captions.
        images: folder of the training images, or a tar file of them.
        test_annotations: annotation file of the test captions.
        test_images: folder or tar file of the test images.
        image_size: height and width, or one number for a square.
        min_count: words that are rarer than this in the training captions become ``<unk>``.
        max_words: longest caption, the full stop included; longer ones are left out.
    """

    def __init__(
        self,
        root: str = "data",
        annotations: str | None = None,
        images: str | None = None,
        test_annotations: str | None = None,
        test_images: str | None = None,
        image_size: int | tuple[int, int] = 32,
        min_count: int = 2,
        max_words: int = 30,
        **kwargs: Any,
    ) -> None:
        root = str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        annotations, images = _text(annotations), _text(images)
        test_annotations, test_images = _text(test_annotations), _text(test_images)
        if (annotations is None) != (images is None) or (test_annotations is None) != (test_images is None):
            raise ValueError("an annotation file and its images belong together: give both, or neither")
        if test_annotations is not None and annotations is None:
            raise ValueError("test_annotations without annotations: give the training files too")
        self.root = Path(root).expanduser()
        self._given: dict[Split, tuple[Path, Path]] = {}
        if annotations is not None and images is not None:
            self._given["train"] = Path(annotations).expanduser(), Path(images).expanduser()
        if test_annotations is not None and test_images is not None:
            self._given["test"] = Path(test_annotations).expanduser(), Path(test_images).expanduser()
        super().__init__(min_count=min_count, max_words=max_words, image_size=image_size, **kwargs)
        if not self.in_memory and any(source.is_file() for _, source in self.sources.values()):
            raise ValueError("images in a tar file are decoded into memory: set in_memory=true, or unpack the file")

    def captioned_files(self) -> dict[Split, list[CaptionedFile]]:
        self.sources = self._given or self._found()
        return {part: _captioned(*source) for part, source in self.sources.items()}

    def _found(self) -> dict[Split, tuple[Path, Path]]:
        for folder in (self.root / "coco", self.root):
            for year in YEARS:
                names: dict[Split, str] = {"train": f"train{year}", "test": f"val{year}"}
                files = {
                    part: (folder / "annotations" / f"captions_{name}.json", folder / name)
                    for part, name in names.items()
                }
                if files["train"][0].is_file():
                    return {part: source for part, source in files.items() if source[0].is_file()}
            if all((folder / name).is_file() for name in MINI):
                return {"train": (folder / MINI[0], folder / MINI[1])}
        raise FileNotFoundError(
            f"COCO is not in {self.root} (no coco/annotations/captions_train2014.json). Unpack train2014.zip,"
            f" val2014.zip and annotations_trainval2014.zip of https://cocodataset.org in {self.root / 'coco'}, or name"
            " the folder that holds them with --data.root, or the files with --data.annotations and --data.images"
        )

    def held_out_size(self, total: int) -> tuple[int, int]:
        tenth = max(1, total // 10)
        return min(1_000, tenth), tenth

    def load(self, part: Split) -> ImageSet:
        source = self.sources[part][1]
        files = self.listed[part]
        if not source.is_file():
            return super().load(part)
        # Decoded while the unpacked files are there.
        with tempfile.TemporaryDirectory() as folder, tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
            images = self.image_files([str(Path(folder, file.path)) for file in files]).decoded()
        return ImageSet(images, self.resident_captions(files))

    def native_size(self) -> str:
        return "various sizes"

    def remarks(self) -> list[str]:
        return [f"captions of {self.sources['train'][0].name}", *super().remarks()]


def _text(path: Any) -> str | None:
    return None if path is None else str(path)


def _captioned(annotations: Path, images: Path) -> list[CaptionedFile]:
    captions = read_coco(annotations)
    if images.is_file():
        try:
            with tarfile.open(images) as archive:
                there = set(archive.getnames())
        except tarfile.TarError as error:
            raise ValueError(f"{images} cannot be read as a tar file ({error}): fetch it again") from error
        paths = {name: name for name in captions if name in there}
    elif images.is_dir():
        paths = {name: str(images / name) for name in captions if (images / name).is_file()}
    else:
        raise FileNotFoundError(f"there is no folder or tar file {images}: name the images of {annotations.name}")
    missing = [name for name in captions if name not in paths]
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of the {len(captions):,} captioned images of {annotations.name} are not in {images},"
            f" {missing[0]} for one: add them, or name another annotation file"
        )
    return [CaptionedFile(path, captions[name]) for name, path in paths.items()]
