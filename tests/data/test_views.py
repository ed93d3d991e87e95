"""Data sets of views: which are held out, what their targets say, where they come from."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gen.data import RenderedChairs, ShapeViews, SyntheticChairs, ViewDataModule, files, rendered_chairs
from lit_gen.data.views import SPLITS, ResidentViews
from lit_gen.data.voxels import pack
from lit_gen.views import ViewTarget


def chairs(**arguments: object) -> SyntheticChairs:
    options: dict[str, object] = {"num_objects": 4, "grid": 12, "azimuths": 8, "image_size": 16, "batch_size": 500}
    return SyntheticChairs(**{**options, **arguments})  # type: ignore[arg-type]


def everything(data: ViewDataModule, split: str) -> tuple[torch.Tensor, ViewTarget]:
    loader = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]()
    (batch,) = loader
    return batch


def keys(target: ViewTarget) -> set[tuple[int, int, int]]:
    """Class, azimuth and elevation in degrees."""
    degrees = (part.rad2deg().round().int().tolist() for part in (target.azimuth, target.elevation))
    return set(zip(target.classes.tolist(), *degrees))


def test_every_view_is_in_one_split() -> None:
    data = chairs()
    found = {split: keys(everything(data, split)[1]) for split in ("train", "val", "test")}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 4 * 8 * 2
    azimuths = {split: {azimuth for _, azimuth, _ in views} for split, views in found.items()}
    assert azimuths["train"] == {0, 45, 90, 180, 225, 270}
    assert azimuths["val"] == azimuths["test"] == {135, 315}
    assert len(found["val"]) == len(found["test"]) == 8
    assert len(data.views) == 12
    assert (90.0, 30.0) in data.views
    assert (135.0, 30.0) not in data.views


def test_classes_with_few_views_are_tested_on_all_others() -> None:
    data = chairs(few_view_classes=1, few_views=3)
    found = {split: keys(everything(data, split)[1]) for split in ("train", "val", "test")}
    few = {split: {view for view in views if view[0] == 3} for split, views in found.items()}
    assert (len(few["train"]), len(few["val"]), len(few["test"])) == (3, 0, 13)
    assert {elevation for _, _, elevation in few["train"]} == {20, 30}
    assert len({azimuth for _, azimuth, _ in few["train"]}) == 3
    assert len(found["train"] - few["train"]) == 3 * 12


def test_elevations_may_be_held_out() -> None:
    data = chairs(elevations=[10.0, 20.0, 30.0], held_out_elevations=[30.0], held_out_every=0)
    assert {elevation for *_, elevation in keys(everything(data, "train")[1])} == {10, 20}
    assert {elevation for *_, elevation in keys(everything(data, "test")[1])} == {30}
    assert data.val_dataloader() == []
    assert "elevations 30 held out" in data.protocol


def test_images_are_the_same_everywhere_and_lie_on_white() -> None:
    images, target = everything(chairs(), "test")
    again, more = everything(chairs(), "test"), everything(chairs(num_objects=6), "test")
    assert torch.equal(images, again[0])
    assert torch.equal(target.mask, again[1].mask)
    assert torch.equal(more[0][: len(images)], images), "more objects begin with the same ones"
    assert target.mask.shape == (len(images), 1, 16, 16)
    assert (images.amin(1, keepdim=True)[target.mask == 0] == 1).all()
    assert (images.amin(1, keepdim=True)[target.mask == 1] < 1).float().mean() > 0.95
    assert ((target.mask > 0) & (target.mask < 1)).any()


def test_opposite_views_are_mirrored_silhouettes() -> None:
    # From the horizon, seen from the opposite side an outline is mirrored, whatever the object.
    _, target = everything(chairs(elevations=[0.0], held_out_every=0, image_size=32), "train")
    order = torch.argsort(target.classes * 100 + target.azimuth)
    masks = target.mask[order].view(4, 8, 32, 32)
    opposite = masks.roll(4, 1).flip(-1)
    assert (masks - opposite).abs().mean() < 0.1 * masks.mean()
    assert (masks - masks.roll(1, 1)).abs().mean() > 0.1 * masks.mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"held_out_every": 1}, "held_out_every must be 0"),
        ({"held_out_elevations": [25.0]}, "must be some of the elevations 20, 30; got 25"),
        ({"held_out_elevations": [20.0, 30.0]}, "all elevations are held out"),
        ({"few_view_classes": 4}, "fewer than the 4 classes"),
        ({"few_view_classes": 1, "few_views": 7}, "few_views must be 1 to 6"),
        ({"horizontal_flip": True}, "horizontal_flip does not fit"),
        ({"binarization": "threshold"}, "binarization does not fit"),
        ({"azimuths": 1}, "azimuths must be at least 2"),
        ({"elevations": [95.0]}, "between -90 and 90"),
        ({"image_size": (16, 20)}, "renders squares"),
        ({"num_objects": 1}, "num_objects must be at least 2"),
    ],
)
def test_impossible_options_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chairs(**arguments)


# ---- voxels and meshes of others

CUBE = "OFF\n8 6 0\n" + "".join(f"{x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 2))
CUBE += "4 0 1 3 2\n4 4 5 7 6\n4 0 1 5 4\n4 2 3 7 6\n4 0 2 6 4\n4 1 3 7 5\n"


def test_meshes_are_rendered(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.off").write_text(CUBE)
    data = ShapeViews(meshes=str(tmp_path), num_objects=2, grid=10, azimuths=4, held_out_every=0, image_size=16)
    assert data.class_names == ("a", "b")
    images, target = next(iter(data.train_dataloader()))
    assert 0.05 < target.mask.mean() < 0.5
    same = images[target.classes == 0].mean((0, 2, 3)) - images[target.classes == 1].mean((0, 2, 3))
    assert same.abs().max() > 0.005, "each has its colours"
    with pytest.raises(FileNotFoundError, match=r"holds 3 meshes \(\.off, \.obj, \.stl\), 4 are wanted"):
        ShapeViews(meshes=str(tmp_path), num_objects=4)


def test_meshes_of_all_formats_are_rendered_alike(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text(CUBE)
    rows = [line.split() for line in CUBE.splitlines()[2:]]
    faces = [" ".join(str(int(number) + 1) for number in row[1:]) for row in rows[8:]]
    (tmp_path / "b.OBJ").write_text(
        "\n".join([*("v " + " ".join(row) for row in rows[:8]), *("f " + f for f in faces)])
    )
    data = ShapeViews(meshes=str(tmp_path), num_objects=2, grid=10, azimuths=4, held_out_every=0, image_size=16)
    assert data.class_names == ("a", "b")
    voxels = data.voxels()
    assert voxels[0].any()
    assert torch.equal(voxels[0], voxels[1])


def test_modelnet_is_rendered(tmp_path: Path) -> None:
    voxels = np.zeros((4, 8, 8, 8), bool)
    for number in range(4):
        voxels[number, 2:6, 2:6, 1 : 3 + number] = True
    for part in ("train", "test"):
        np.savez(
            tmp_path / f"modelnet10_vox8_rot01_{part}.npz",
            voxels_packed=pack(voxels),
            labels=np.array([0, 1, 1, 1]),
            classes=np.array(["bed", "chair"]),
        )
    data = ShapeViews(str(tmp_path), num_objects=3, grid=8, azimuths=4, held_out_every=0, image_size=16, batch_size=99)
    _, target = everything(data, "train")
    sizes = [float(target.mask[target.classes == number].sum()) for number in range(3)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    with pytest.raises(ValueError, match="num_objects=9 is more than the 3 training objects of chair"):
        ShapeViews(str(tmp_path), num_objects=9, grid=8)


# ---- the published folder


def rendered(root: Path, models: int = 2, transparent: bool = False) -> None:
    for model in range(models):
        folder = root / "rendered_chairs" / f"model{model}" / "renders"
        folder.mkdir(parents=True)
        number = 0
        for elevation in (20, 30):
            for azimuth in range(0, 360, 90):
                pixels = np.full((40, 40, 4), 255, np.uint8)
                pixels[..., 3] = 0 if transparent else 255
                # As wide as the azimuth says, as high as the elevation.
                pixels[10 : 10 + elevation // 2, 10 : 14 + azimuth // 30] = (200, 30 * model, 0, 255)
                name = f"image_{number:03d}_p{elevation:03d}_t{azimuth:03d}_r096.png"
                Image.fromarray(pixels if transparent else pixels[..., :3]).save(folder / name)
                number += 1


@pytest.mark.parametrize("transparent", [False, True])
def test_rendered_chairs_are_read(tmp_path: Path, transparent: bool) -> None:
    rendered(tmp_path, transparent=transparent)
    data = RenderedChairs(str(tmp_path), crop=40, image_size=20, held_out_every=0, batch_size=99)
    images, target = everything(data, "train")
    assert images.shape == (16, 3, 20, 20)
    assert data.class_names == ("model0", "model1")
    for number in range(len(images)):
        wide = 4 + round(math.degrees(float(target.azimuth[number]))) // 30
        high = round(math.degrees(float(target.elevation[number]))) // 2
        assert float(target.mask[number].sum()) == pytest.approx(wide * high / 4, rel=0.05)
        assert float(images[number, :, 6, 6].mean()) < 0.5
    assert data.view_set.azimuths == (0.0, 90.0, 180.0, 270.0)


def test_rendered_chairs_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(tmp_path, models=3)
    decoded: list[str] = []
    read = files.decode

    def counted(path: Path, *arguments: Any, **options: Any) -> torch.Tensor:
        decoded.append(f"{path.parent.parent.name}/{path.name}")
        return read(path, *arguments, **options)

    monkeypatch.setattr(rendered_chairs, "decode", counted)
    options: dict[str, Any] = {"crop": 40, "held_out_every": 2, "batch_size": 99}

    def run(size: int = 20, **more: Any) -> list[torch.Tensor]:
        """All images and masks, in order; what was decoded for them is in ``decoded``."""
        decoded.clear()
        data = RenderedChairs(str(tmp_path), image_size=size, **{**options, **more})
        data.prepare_data()
        parts: list[torch.Tensor] = []
        for split in SPLITS:
            images, target = data.load(split)[:2]
            assert isinstance(images, torch.Tensor)
            assert isinstance(target, ResidentViews)
            parts += [images, target.masks]
        return parts

    first = run()
    assert len(decoded) == len(set(decoded)) == 24
    kept = tmp_path / "rendered_chairs_20x20"
    assert len(list(kept.iterdir())) == 3, "a file a model, and nothing unfinished"
    again = run(num_objects=2)
    assert not decoded
    assert sum(map(len, again)) == sum(map(len, first)) * 2 // 3
    for part, whole in zip(again, first):
        assert torch.equal(part, whole[: len(part)])
    run(16)
    assert len(decoded) == 24, "another size"
    run(crop=36)
    assert len(decoded) == 24, "another crop"
    (changed,) = tmp_path.glob("rendered_chairs/model1/renders/*_p030_t090_*")
    Image.new("RGB", (40, 40), "red").save(changed)
    now = run()
    assert {name.partition("/")[0] for name in decoded} == {"model1"}
    assert not all(torch.equal(old, new) for old, new in zip(first, now))


def test_a_file_chooses_the_chairs(tmp_path: Path) -> None:
    rendered(tmp_path, models=4)
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("model3\n\nmodel1\nmodel2\n")
    data = RenderedChairs(str(tmp_path), objects=str(chosen), crop=40, image_size=20, held_out_every=0, batch_size=99)
    assert data.class_names == ("model3", "model1", "model2")
    assert "those of chosen.txt" in data.protocol
    images, target = everything(data, "train")
    green = [255 * float(images[target.classes == number, 1].amin()) for number in range(3)]
    assert green == pytest.approx([90, 30, 60], abs=0.5)
    assert RenderedChairs(str(tmp_path), objects=str(chosen), num_objects=2).class_names == ("model3", "model1")
    chosen.write_text("model3\nsofa\n")
    with pytest.raises(ValueError, match=r"chosen\.txt names sofa, which .* does not have: .* such as model0"):
        RenderedChairs(str(tmp_path), objects=str(chosen))
    chosen.write_text("\n")
    with pytest.raises(ValueError, match=r"chosen\.txt names no model"):
        RenderedChairs(str(tmp_path), objects=str(chosen))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.txt.*--data\.objects"):
        RenderedChairs(str(tmp_path), objects=str(tmp_path / "nowhere.txt"))


def test_half_decoded_chairs_leave_nothing(tmp_path: Path) -> None:
    rendered(tmp_path)
    for path in (tmp_path / "rendered_chairs" / "model1").rglob("*_p030_t090_*"):
        path.write_bytes(b"no image")
    data = RenderedChairs(str(tmp_path), crop=40, image_size=20, held_out_every=0)
    with pytest.raises(ValueError, match=r"cannot read image .*model1"):
        data.prepare_data()
    assert not [path for path in (tmp_path / "rendered_chairs_20x20").iterdir() if "model0" not in path.name]


def test_chairs_that_are_not_opaque_lie_on_white(tmp_path: Path) -> None:
    rendered(tmp_path, transparent=True)
    for path in tmp_path.rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[pixels[..., 3] > 0] = (200, 100, 0, 128)
        Image.fromarray(pixels).save(path)
    data = RenderedChairs(str(tmp_path), crop=40, image_size=40, held_out_every=0, batch_size=99)
    images, target = everything(data, "train")
    assert target.mask.unique().tolist() == pytest.approx([0, 128 / 255])
    inside = images.movedim(1, 0)[:, target.mask[:, 0] > 0].unique(dim=1)[:, 0] * 255
    wanted = [128 / 255 * value + 127 for value in (200, 100, 0)]
    assert inside.tolist() == pytest.approx(wanted, abs=0.51)


def test_incomplete_folders_say_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds 0 chairs: get rendered_chairs\.tar from .*--data\.root"):
        RenderedChairs(str(tmp_path))
    rendered(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds 2 chairs"):
        RenderedChairs(str(tmp_path), num_objects=3)
    (tmp_path / "rendered_chairs" / "model1" / "renders" / "image_000_p020_t000_r096.png").unlink()
    with pytest.raises(ValueError, match="has 7 views"):
        RenderedChairs(str(tmp_path))
