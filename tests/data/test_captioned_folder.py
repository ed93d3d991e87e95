"""A user's own images and captions, and COCO's: one in files of many forms, the other in files like the real ones."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gen.captions import Caption, Vocabulary
from lit_gen.data import BatchLoader, CaptionedFolder, CocoCaptions
from tests.data.common import picture

NAMES = [f"{number:02}.png" for number in range(10)]
FORMS = {
    "captions.csv": "image,caption\n" + "".join(f'{name},"A picture, number {name[:2]}"\n' for name in NAMES),
    "captions.jsonl": "".join(json.dumps({"file_name": n, "text": f"A picture, number {n[:2]}"}) + "\n" for n in NAMES),
    "captions.txt": "".join(f"{name}\tA picture, number {name[:2]}\n" for name in NAMES),
}


def images(folder: Path, names: list[str] = NAMES) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(folder / name, seed=seed)
    return folder


def words(data: Any, captions: Caption) -> list[str]:
    return [" ".join(line) for line in Vocabulary(data.vocabulary).decode(captions)]


def by_image(data: Any, loader: Any) -> dict[bytes, str]:
    found = {}
    for shown, captions in loader:
        found |= dict(zip(map(bytes, shown.flatten(1).numpy()), words(data, captions), strict=True))
    return found


@pytest.mark.parametrize("form", FORMS)
def test_captions_in_every_form(form: str, tmp_path: Path) -> None:
    (images(tmp_path) / form).write_text(FORMS[form])
    data = CaptionedFolder(str(tmp_path), image_size=(8, 12), batch_size=4)
    assert data.image_shape == (3, 8, 12)
    assert (data.num_train, len(data.captions)) == (8, 8)
    found = {}
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        found |= by_image(data, loader)
    for number, name in enumerate(NAMES):
        # The words of the two images that are not trained on need not be known.
        pixels = bytes((torch.from_numpy(_pixels(tmp_path / name)) / 255).numpy())
        assert found[pixels] in (f"a picture , number {number:02} .", "a picture , number <unk> .")
    assert sum("<unk>" in text for text in found.values()) == 2


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    return np.ascontiguousarray(np.asarray(Image.open(path)).transpose(2, 0, 1)).reshape(-1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("captions.csv", "image,title\n00.png,x\n", r"no column caption or .*; it has image, title"),
        ("captions.csv", "image,caption\n00.png,one, two\n", "line 2: expected 2 columns; put a caption with commas"),
        ("captions.txt", "00.png one\n", "line 1: no tab between image and caption"),
        ("captions.txt", "00.png\ta\nmissing.png\ta bird\n", "line 2: there is no image 'missing.png' below"),
        ("captions.txt", "00.png\ta\n01.png\t \n", "line 2: the caption is empty"),
        ("captions.txt", "00.png\ta bird\n", r"9 of 10 images have no caption in .*'01\.png' for one"),
        ("captions.txt", "", "is empty"),
        ("captions.jsonl", '{"image": "00.png"', "line 1 is no JSON"),
        ("captions.jsonl", "[1]", "line 1: expected an object"),
        ("captions.jsonl", '{"image": "00.png", "caption": 3}', "line 1: image and caption must be strings"),
        ("words.doc", "x", "unknown ending '.doc', expected .csv, .jsonl or .txt"),
    ],
)
def test_captions_that_do_not_fit(name: str, text: str, message: str, tmp_path: Path) -> None:
    (images(tmp_path) / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        CaptionedFolder(str(tmp_path), captions_file=str(tmp_path / name))


def test_one_colour_picture_makes_all_of_them_colour(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("".join(f"{name}\tone\n" for name in NAMES))
    for seed, name in enumerate(NAMES):
        picture(tmp_path / name, "L", seed=seed)
    assert CaptionedFolder(str(tmp_path), image_size=8).image_shape == (1, 8, 8)
    picture(tmp_path / NAMES[4])
    assert CaptionedFolder(str(tmp_path), image_size=8).image_shape == (3, 8, 8)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"should hold one of captions\.csv, .* it holds none of them"):
        CaptionedFolder(str(images(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*own\.csv"):
        CaptionedFolder(str(tmp_path), captions_file=str(tmp_path / "own.csv"))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        CaptionedFolder(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"COCO is not in .*nowhere .*--data\.root"):
        CocoCaptions(str(tmp_path / "nowhere"))


def coco(folder: Path, part: str, total: int, words: str) -> None:
    """A part of COCO in its own format: five captions each, of which the last is too long."""
    names = [f"{part}_{number:03}.jpg" for number in range(total)]
    captions = [
        {"id": 10 * i + k, "image_id": 100 + i, "caption": f"{words} {i} {'abcd'[k]}" if k < 4 else "long " * 40}
        for k in range(5)  # the captions of an image do not lie together
        for i in range(total)
    ]
    entries = [{"id": 100 + i, "file_name": name} for i, name in enumerate(names)]
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    file = folder / "annotations" / f"captions_{part}.json"
    file.write_text(json.dumps({"images": entries, "annotations": captions}))
    images(folder / part, names)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    coco(tmp_path / "coco", "train2017", 20, "Seen")
    coco(tmp_path / "coco", "val2017", 4, "Seen elsewhere")
    return tmp_path


def test_one_of_the_captions_of_an_image_is_drawn_in_every_epoch(root: Path) -> None:
    data = CocoCaptions(str(root), batch_size=7, min_count=1)
    assert data.image_shape == (3, 32, 32)
    assert (data.num_train, data.val_size, data.info.test_size) == (18, 2, 4)
    loader = data.train_dataloader()
    assert isinstance(loader, BatchLoader)
    drawn: dict[bytes, set[str]] = {}
    for epoch in range(30):
        loader.set_epoch(epoch)
        once, again = by_image(data, loader), by_image(data, loader)
        assert once == again
        for image, caption in once.items():
            drawn.setdefault(image, set()).add(caption)
    assert len(drawn) == 18
    for captions in drawn.values():  # each of the four short ones, all of the same image
        numbers = {caption.split()[1] for caption in captions}
        assert len(numbers) == 1
        number = numbers.pop()
        assert captions == {f"seen {number} {letter} ." for letter in "abcd"}


def test_evaluation_takes_the_first_caption_and_knows_training_words_alone(root: Path) -> None:
    data = CocoCaptions(str(root), min_count=1)
    assert "elsewhere" not in data.vocabulary
    assert "long" not in data.vocabulary
    [(shown, captions)] = list(data.test_dataloader())
    assert len(shown) == 4
    assert words(data, captions) == [f"seen <unk> {word} a ." for word in _known(data, "0123")]
    rare = CocoCaptions(str(root), min_count=18)
    assert set(rare.vocabulary) == {"<pad>", "<unk>", "seen", ".", "a", "b", "c", "d"}
    assert "words in the vocabulary, those that come 18 times or more" in rare.protocol


def _known(data: CocoCaptions, numbers: str) -> list[str]:
    return [number if number in data.vocabulary else "<unk>" for number in numbers]


def test_images_in_a_tar_file_and_captions_within_their_entries(tmp_path: Path) -> None:
    names = [f"val2017/{number:03}.jpg" for number in range(10)]
    images(tmp_path / "coco", names)
    with tarfile.open(tmp_path / "coco" / "coco_mini_images_min128.tar", "w") as archive:
        for name in names:
            archive.add(tmp_path / "coco" / name, name)
    entries = [{"id": i, "file_name": name, "captions": [f"Picture {i}."]} for i, name in enumerate(names)]
    file = tmp_path / "coco" / "coco_mini_captions.json"
    file.write_text(json.dumps({"images": entries}))
    data = CocoCaptions(str(tmp_path), min_count=1)
    data.setup()
    assert len(by_image(data, data.train_dataloader())) == data.num_train == 8
    with pytest.raises(ValueError, match="decoded into memory: set in_memory=true"):
        CocoCaptions(str(tmp_path), in_memory=False)
    file.write_text(json.dumps({"images": [*entries, {"id": 99, "file_name": "gone.jpg", "captions": ["x"]}]}))
    with pytest.raises(FileNotFoundError, match=r"1 of the 11 captioned images .* are not in .*\.tar, gone\.jpg"):
        CocoCaptions(str(tmp_path))
    file.write_text("{}")
    with pytest.raises(ValueError, match="is no annotation file of COCO's captions"):
        CocoCaptions(str(tmp_path))


def test_streamed_images_have_the_same_captions(root: Path) -> None:
    options: dict[str, Any] = {"min_count": 1, "batch_size": 5}
    resident, streamed = (
        CocoCaptions(str(root), **options),
        CocoCaptions(str(root), in_memory=False, num_workers=0, **options),
    )
    assert by_image(resident, resident.train_dataloader()) == by_image(streamed, streamed.train_dataloader())


def test_padding_is_no_longer_than_the_batch_needs(tmp_path: Path) -> None:
    (images(tmp_path) / "captions.txt").write_text(
        "".join(f"{name}\t{'word ' * (number + 1)}\n" for number, name in enumerate(NAMES))
    )
    data = CaptionedFolder(str(tmp_path), image_size=4, batch_size=3)
    lengths: list[Tensor] = []
    for _, captions in data.train_dataloader():
        assert captions.tokens.shape[1] == captions.lengths.max()
        assert torch.equal(captions.mask, captions.tokens != 0)
        lengths.append(captions.lengths)
    assert len(set(torch.cat(lengths).tolist())) == 8
