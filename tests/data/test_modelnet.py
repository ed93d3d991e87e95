"""Meshes to voxels, and ModelNet as meshes and as ready grids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_gen.data import ModelNet
from lit_gen.data.meshes import read_off, surface_points, voxelize
from lit_gen.data.voxels import pack
from tests.data.common import everything

CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
SQUARES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
TETRAHEDRON = ([(0, 0, 0), (24, 0, 0), (0, 24, 0), (0, 0, 24)], [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)])

Box = tuple[float, float, float, float, float, float]
CHAIR: list[Box] = [
    (0, 0, 10, 12, 12, 2),
    (0, 10, 12, 12, 2, 12),
    *[(x, y, 0, 2, 2, 10) for x in (0, 10) for y in (0, 10)],
]
UNEVEN: list[Box] = [(0, 0, 9.6, 12.7, 12.2, 2.4), (0, 9.3, 11.5, 12.7, 2.9, 12.6), (4.1, 3.7, 0, 3.9, 4.3, 10)]


def boxes(*parts: Box, open_above: bool = False) -> tuple[list[Any], list[Any]]:
    """Mesh of boxes (x, y, z, width, depth, height)."""
    vertices: list[Any] = []
    faces: list[Any] = []
    for part in parts:
        faces += [tuple(len(vertices) + corner for corner in square) for square in SQUARES[: 5 if open_above else 6]]
        vertices += (CORNERS * part[3:] + part[:3]).tolist()
    return vertices, faces


def write_off(path: Path, vertices: Any, faces: Any, joined: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [" ".join(map(str, vertex)) for vertex in vertices]
    lines += [" ".join(map(str, (len(face), *face))) for face in faces]
    head = f"{len(vertices)} {len(faces)} 0"
    path.write_text("\n".join([f"OFF{head}" if joined else f"OFF\n# made by hand\n{head}", *lines]) + "\n")
    return path


def filled(folder: Path, mesh: tuple[Any, Any], **options: Any) -> np.ndarray:
    return voxelize(*read_off(write_off(folder / "mesh.off", *mesh)), **options)


def test_header_in_one_line_and_polygons(tmp_path: Path) -> None:
    mesh = boxes((0, 0, 0, 1, 2, 3))
    vertices, faces = read_off(write_off(tmp_path / "a.off", *mesh))
    joined = read_off(write_off(tmp_path / "b.off", *mesh, joined=True))
    assert np.array_equal(vertices, mesh[0])
    assert faces.shape == (12, 3)
    assert np.array_equal(joined[0], vertices)
    assert np.array_equal(joined[1], faces)
    sides = vertices[faces[:, 1:]] - vertices[faces[:, :1]]
    assert np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2 == pytest.approx(22)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with OFF"),
        ("PLY\n1 1 0", "does not begin with OFF"),
        ("OFF\n4 1 0\n0 0 0\n", "ends after 1 of 4 vertices and 1 faces"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "names vertex 3 of 3"),
        ("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "no faces"),
        ("OFF\n3 1 0\n0 0 nan\n1 0 0\n0 1 0\n3 0 1 2\n", "no finite numbers"),
    ],
)
def test_damaged_meshes_are_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "bad.off").write_text(text)
    with pytest.raises(ValueError, match=rf"bad.off is no readable .off mesh \(.*{reason}.*repair or remove"):
        read_off(tmp_path / "bad.off")


def test_points_cover_a_triangle() -> None:
    vertices = np.array([[0.0, 0, 0], [9, 1, 0], [2, 7, 5]])
    points = surface_points(vertices, np.array([[0, 1, 2]]), 0.7)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 500)
    distances = np.linalg.norm((weights @ vertices)[:, None] - points, axis=2).min(1)
    assert distances.max() < 0.5


def test_a_cube_is_solid_and_an_open_box_hollow(tmp_path: Path) -> None:
    (cube,) = filled(tmp_path, boxes((5, -3, 2, 7, 7, 7)), rotations=1)
    expected = np.zeros((30, 30, 30), bool)
    expected[3:27, 3:27, 3:27] = True
    assert np.array_equal(cube, expected)
    (tub,) = filled(tmp_path, boxes((0, 0, 0, 24, 24, 24), open_above=True), rotations=1)
    expected[4:26, 4:26, 4:] = False
    assert np.array_equal(tub, expected)


def test_a_tetrahedron_has_its_volume(tmp_path: Path) -> None:
    (grid,) = filled(tmp_path, TETRAHEDRON, size=60, rotations=1)
    # A sixth of the cube, and half a voxel more on its slanted side.
    assert 48**3 / 6 < grid.sum() < 1.12 * 48**3 / 6
    assert grid[6, 6, 6:54].all()


@pytest.mark.parametrize("mesh", [TETRAHEDRON, boxes(*UNEVEN)], ids=["tetrahedron", "chair"])
def test_rotations(tmp_path: Path, mesh: tuple[Any, Any]) -> None:
    grids = filled(tmp_path, mesh)
    assert grids.shape == (12, 30, 30, 30)
    for turn, grid in enumerate(grids):
        edges = [np.flatnonzero(grid.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
        assert max(high - low + 1 for low, high in edges) == 24, turn
        assert all(abs(low + high - 29) <= 1 for low, high in edges), "centred"
    for quarter in range(1, 4):
        # Rounding at the walls of voxels aside, a quarter of a turn is exact.
        turned = np.rot90(grids[0], quarter, axes=(0, 1))
        assert (turned & grids[3 * quarter]).sum() > 0.8 * (turned | grids[3 * quarter]).sum()
    assert np.array_equal(grids[::4], filled(tmp_path, mesh, rotations=3))


def test_a_chair_keeps_its_parts(tmp_path: Path) -> None:
    (grid,) = filled(tmp_path, boxes(*CHAIR), rotations=1)
    assert grid[9:21, 9:21, 14].all(), "the seat"
    assert grid[9:21, 19:21, 15:27].all(), "the back"
    assert not grid[9:21, 9:18, 17:].any()
    assert [grid[x, y, 3:13].all() for x, y in ((9, 9), (9, 20), (20, 9), (20, 20))] == 4 * [True]
    assert not grid[13:17, :, 3:12].any()


# ---- the data set


def write_meshes(root: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for number in range(count):
            height = 4.0 + number
            box = boxes((0, 0, 0, 24, 12, height))
            write_off(root / "ModelNet10" / "bed" / split / f"bed_{number:04}.off", *box, joined=number % 2 == 1)
            write_off(root / "ModelNet10" / "chair" / split / f"chair_{number:04}.off", *boxes(*CHAIR[: 2 + number]))


def write_grids(root: Path, rotations: int, name: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    voxels = rng.random((20, rotations, 30, 30, 30)) < 0.2
    for part, members in (("train", slice(0, 14)), ("test", slice(14, 20))):
        packed = pack(voxels[members].reshape(-1, 30, 30, 30)).reshape(-1, rotations, 3375)
        labels = (np.arange(20) % 3)[members].astype(np.uint8)
        classes = np.array(["bed", "chair", "sofa"])
        packed = packed[:, 0] if rotations == 1 else packed
        np.savez(root / f"{name}_{part}.npz", voxels_packed=packed, labels=labels, classes=classes)
    return voxels


def test_meshes_are_voxelized_once(tmp_path: Path) -> None:
    write_meshes(tmp_path)
    options: dict[str, Any] = {"rotations": 2, "size": 10, "val_size": 2}
    data = ModelNet(str(tmp_path), **options)
    assert (data.image_shape, data.class_names, data.num_train) == ((1, 10, 10, 10), ("bed", "chair"), 14)
    data.prepare_data()
    images, targets = everything(data.test_dataloader())
    assert targets.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    mesh = read_off(tmp_path / "ModelNet10" / "chair" / "test" / "chair_0001.off")
    assert np.array_equal(images[6:, 0].numpy(), voxelize(*mesh, 10, 2))
    assert sorted(path.name for path in (tmp_path / "modelnet").iterdir()) == [
        "modelnet10_vox10_rot02_test.npz",
        "modelnet10_vox10_rot02_train.npz",
    ]
    for path in (tmp_path / "ModelNet10").rglob("*.off"):
        path.unlink()
    again = ModelNet(str(tmp_path), **options)
    again.prepare_data()
    assert (again.num_train, again.class_names) == (14, ("bed", "chair"))
    single = ModelNet(str(tmp_path), rotations=1, size=10, val_size=2)
    assert np.array_equal(everything(single.test_dataloader())[0], images[::2]), "a file of more rotations serves"


def test_rotations_of_an_object_stay_together(tmp_path: Path) -> None:
    voxels = write_grids(tmp_path, 12, "modelnet10_vox30_rot12")
    data = ModelNet(str(tmp_path), rotations=4, val_size=8, batch_size=7)
    data.prepare_data()
    numbers = {voxels[i, 3 * r].tobytes(): (i, r) for i in range(20) for r in range(4)}
    seen = {}
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        images, targets = everything(loader)
        found = [numbers[image.numpy().astype(bool).tobytes()] for image in images[:, 0]]
        assert targets.tolist() == [number % 3 for number, _ in found]
        seen[split] = found
    assert sorted(seen["train"] + seen["val"]) == [(i, r) for i in range(14) for r in range(4)]
    assert len({number for number, _ in seen["val"]}) == 2
    assert "4 rotations of each object" in data.protocol


def test_some_classes_of_grids_in_one_rotation(tmp_path: Path) -> None:
    (tmp_path / "modelnet").mkdir()
    voxels = write_grids(tmp_path / "modelnet", 1, "modelnet40_vox30_rot01")
    data = ModelNet(str(tmp_path), variant=40, classes=["sofa", "bed"], rotations=1, val_size=2)
    assert (data.num_classes, data.num_train) == (2, 7)
    images, targets = everything(data.test_dataloader())
    assert targets.tolist() == [0, 1, 0, 1]
    assert np.array_equal(images[:, 0].numpy(), voxels[[14, 15, 17, 18], 0])


def test_sizes_are_known_before_there_are_files(tmp_path: Path) -> None:
    data = ModelNet(str(tmp_path))
    assert (data.image_shape, data.num_classes, data.num_train) == ((1, 30, 30, 30), 10, 12 * (3991 - 399))
    assert sum(ModelNet(str(tmp_path), variant=40, rotations=1)._sizes.values()) == 9843 + 2468
    with pytest.raises(FileNotFoundError, match=r"get ModelNet10.zip from https://modelnet.cs.princeton.edu"):
        data.prepare_data()
    with pytest.raises(FileNotFoundError, match=r"--data.root"):
        data.train_dataloader()
    write_grids(tmp_path, 1, "modelnet10_vox30_rot01")
    with pytest.raises(FileNotFoundError, match=r"rot01_train.npz has other rotations than rotations=12"):
        data.prepare_data()


def test_damaged_files(tmp_path: Path) -> None:
    write_meshes(tmp_path)
    (tmp_path / "ModelNet10" / "bed" / "test" / "bed_0000.off").write_text("nothing")
    data = ModelNet(str(tmp_path), rotations=1, size=10)
    with pytest.raises(ValueError, match=r"bed_0000.off is no readable"):
        data.prepare_data()
    assert not list((tmp_path / "modelnet").glob("*test*")), "all of a part or nothing"
    np.savez(tmp_path / "modelnet10_vox30_rot12_train.npz", labels=np.zeros(20, np.uint8), classes=np.array(["bed"]))
    (tmp_path / "modelnet10_vox30_rot12_test.npz").hardlink_to(tmp_path / "modelnet10_vox30_rot12_train.npz")
    with pytest.raises(ValueError, match=r"holds no packed grids of 30 \(.*voxels_packed.*remove it"):
        ModelNet(str(tmp_path)).train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": 20}, "variant must be 10 or 40"),
        ({"rotations": 0}, "rotations must be at least 1"),
        ({"classes": ["sofa", "throne"]}, "throne is unknown"),
        ({"val_size": 30}, "val_size=30 would tear the 12 copies"),
        ({"horizontal_flip": True}, "is for pictures"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelNet(str(tmp_path), **options)
