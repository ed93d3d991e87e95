"""Any folder of images with a file of captions."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lit_gen.data.captioned import CaptionedFile, CaptionedFiles
from lit_gen.data.files import stored_shape
from lit_gen.data.image_folder import HEADERS, list_images
from lit_gen.data.loader import Split

FILE_NAMES = ("captions.csv", "captions.jsonl", "captions.txt")
IMAGE_COLUMNS = ("image", "file", "file_name", "filename", "path")
CAPTION_COLUMNS = ("caption", "captions", "text", "description")


def read_captions(path: Path) -> list[tuple[int, str, str]]:
    """Line number, image and caption of every caption in a file.

    ``.csv`` has a header line that names the columns; ``.jsonl`` an object in every line, whose caption may be a list;
    ``.txt`` lines ``image<tab>caption``, or a header as in CSV. An image comes once for each of its captions.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that cannot be understood; names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name the file of captions (csv, jsonl or txt)")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it as UTF-8") from error
    lines = text.splitlines()
    if not text.strip():
        raise ValueError(f"{path} is empty: it should name an image and its caption in every line")
    match path.suffix.lower():
        case ".jsonl":
            found = list(_json_lines(path, lines))
        case ".csv":
            found = list(_table(path, lines))
        case ".txt":
            has_header = "\t" not in lines[0] and "," in lines[0]
            found = list(_table(path, lines) if has_header else _tabbed(path, lines))
        case suffix:
            raise ValueError(f"{path}: unknown ending {suffix!r}, expected .csv, .jsonl or .txt")
    for number, image, caption in found:
        if not image.strip() or not caption.strip():
            raise ValueError(f"{path}, line {number}: {'the caption' if image.strip() else 'the image'} is empty")
    return found


def _column(path: Path, names: Sequence[str], wanted: Sequence[str]) -> str:
    found = [name for name in names if (name or "").strip().lower() in wanted]
    if not found:
        raise ValueError(f"{path}: no column {' or '.join(wanted)}; it has {', '.join(map(str, names))}")
    return found[0]


def _table(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = list(reader.fieldnames or [])
    image, caption = _column(path, names, IMAGE_COLUMNS), _column(path, names, CAPTION_COLUMNS)
    for row in reader:
        if row[image] is None or row[caption] is None or None in row:
            raise ValueError(
                f"{path}, line {reader.line_num}: expected {len(names)} columns; put a caption with commas in quotes"
            )
        yield reader.line_num, row[image], row[caption]


def _tabbed(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, 1):
        image, tab, caption = line.partition("\t")
        if not tab and line.strip():
            raise ValueError(f"{path}, line {number}: no tab between image and caption: {line[:60]!r}")
        if tab:
            yield number, image.strip(), caption


def _json_lines(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is no JSON ({error})") from error
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, line {number}: expected an object with an image and a caption, got {line[:60]}")
        image = entry[_column(path, list(entry), IMAGE_COLUMNS)]
        captions = entry[_column(path, list(entry), CAPTION_COLUMNS)]
        for caption in captions if isinstance(captions, list) else [captions]:
            if not isinstance(caption, str) or not isinstance(image, str):
                raise ValueError(f"{path}, line {number}: image and caption must be strings, got {line[:60]}")
            yield number, image, caption


class CaptionedFolder(CaptionedFiles):
    """A folder of images of any size with a file of captions, several for an image if you like.

    The file is ``captions.csv`` (header ``image,caption``), ``captions.jsonl`` (``{"image": ..., "caption": ...}`` in
    every line; the caption may be a list) or ``captions.txt`` (``image<tab>caption``). Validation and test images, a
    tenth each unless told otherwise, are taken out of the folder.

    Args:
        root: folder of images, with its subfolders.
        captions_file: file of captions. Default: the one of those names in ``root``.
        image_size: height and width, or one number for a square.
        test_size: how many are taken out for testing; 0 for none. Default: a tenth.
        min_count: words that are rarer than this in the training captions become ``<unk>``.
        max_words: longest caption, the full stop included; longer ones are left out, and images that have no other.
    """

    def __init__(
        self,
        root: str,
        captions_file: str | None = None,
        image_size: int | tuple[int, int] = 32,
        test_size: int | None = None,
        min_count: int = 1,
        max_words: int = 50,
        **kwargs: Any,
    ) -> None:
        root = str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        captions_file = None if captions_file is None else str(captions_file)
        if test_size is not None and test_size < 0:
            raise ValueError(f"test_size must not be negative, got {test_size}")
        self.root = Path(root).expanduser()
        self._captions_file = captions_file
        self._test_size = test_size
        super().__init__(min_count=min_count, max_words=max_words, image_size=image_size, **kwargs)

    def held_out_size(self, total: int) -> tuple[int, int]:
        tenth = max(1, total // 10)
        return tenth, tenth if self._test_size is None else self._test_size

    def image_shape_of(self, files: Sequence[CaptionedFile]) -> tuple[int, int, int]:
        # In colour if any of those that are looked at is, as in ImageFolder.
        looked_at = files[:: math.ceil(len(files) / HEADERS)]
        shapes = [stored_shape(Path(file.path), sideways_png=False) for file in looked_at]
        return (3 if max(shape[0] for shape in shapes) > 2 else 1, *shapes[0][1:])

    def _file(self) -> Path:
        if self._captions_file is not None:
            return Path(self._captions_file).expanduser()
        there = [self.root / name for name in FILE_NAMES if (self.root / name).is_file()]
        if len(there) != 1:
            found = " and ".join(path.name for path in there) or "none of them"
            raise FileNotFoundError(
                f"{self.root} should hold one of {', '.join(FILE_NAMES)}, it holds {found}: name the file with"
                " --data.captions_file"
            )
        return there[0]

    def captioned_files(self) -> dict[Split, list[CaptionedFile]]:
        images = [Path(name).as_posix() for name in list_images(self.root)]
        path = self._file()
        captions: dict[str, list[str]] = {name: [] for name in images}
        for number, image, caption in read_captions(path):
            name = Path(image).as_posix()
            if name not in captions:
                raise ValueError(
                    f"{path}, line {number}: there is no image {image!r} below {self.root}: correct the name (relative"
                    " to the folder of images), or remove the line"
                )
            captions[name].append(caption)
        without = [name for name, few in captions.items() if not few]
        if without:
            raise ValueError(
                f"{len(without):,} of {len(images):,} images have no caption in {path}, {without[0]!r} for one: write"
                " one, or take them out of the folder"
            )
        return {"train": [CaptionedFile(str(self.root / name), few) for name, few in captions.items()]}

    def native_size(self) -> str:
        return "various sizes"
