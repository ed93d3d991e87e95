"""Reading meshes of other formats."""

import struct
from pathlib import Path

import numpy as np
import pytest

from lit_gen.data.meshes import find_meshes, read_mesh

CORNERS = [(0.0, 0.0, 0.0), (2.0, 0.0, 0.0), (2.0, 1.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.5, 3.0)]
TRIANGLES = [(0, 1, 2), (0, 2, 3), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
"""A pyramid on a rectangle of 2 by 1, 3 high."""


def triangles(path: Path) -> set[tuple[tuple[float, ...], ...]]:
    """Corners of each triangle, whatever the order of the vertices in the file."""
    vertices, faces = read_mesh(path)
    assert (vertices.dtype, faces.dtype) == (np.float64, np.int64)
    assert vertices.shape == (5, 3)
    return {tuple(sorted(map(tuple, vertices[face].tolist()))) for face in faces}


WANTED = {tuple(sorted(CORNERS[number] for number in face)) for face in TRIANGLES}
VERTICES = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS)


@pytest.mark.parametrize(
    "text",
    [
        VERTICES + "f 1 2 3 4\nf 1 2 5\nf 2 3 5\nf 3 4 5\nf 4 1 5\n",
        # Backwards from the newest vertex, before the tip is there and after it.
        VERTICES.replace("v 1.0", "f -4 -3 -2 -1\nv 1.0") + "f -5 -4 -1\nf -4 -3 -1\nf -3 -2 -1\nf -2 -5 -1\n",
        "# a pyramid\nmtllib ä.mtl\no pyramid\n"
        + VERTICES.replace("\n", " 0.5 0.5 0.5\n")
        + "vt 0 0\nvn 0 0 1\nusemtl red # bright\nf 1/1 2/1 3/1 4/1\nf 1//1 2//1 \\\n5//1\n"
        + "f 2/1/1 3/1/1 5/1/1\nf 3 4 5\nf 4 1 5\nl 1 2\n",
    ],
    ids=["plain", "negative", "with textures and normals"],
)
def test_obj(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.obj").write_bytes(text.encode("latin-1"))
    assert triangles(tmp_path / "a.obj") == WANTED


def binary(comment: bytes = b"made by hand") -> bytes:
    parts = [struct.pack("<3f", 0, 0, 1) + struct.pack("<9f", *np.ravel([CORNERS[i] for i in f])) for f in TRIANGLES]
    return comment.ljust(80) + struct.pack("<I", len(parts)) + b"".join(part + b"\0\0" for part in parts)


def ascii_text() -> str:
    facets = []
    for face in TRIANGLES:
        corners = "".join("vertex {:e} {:e} {:e}\n".format(*CORNERS[number]) for number in face)
        facets.append(f"  facet normal 0 0 1\n outer loop\n{corners} endloop\n endfacet\n")
    return f"solid pyramid\n{''.join(facets)}endsolid pyramid\n"


@pytest.mark.parametrize(
    "stored",
    [binary(), binary(b"solid in name alone"), ascii_text().encode(), ascii_text().upper().encode()],
    ids=["binary", "binary that begins like a text", "text", "capitals"],
)
def test_stl(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "a.STL").write_bytes(stored)
    assert triangles(tmp_path / "a.STL") == WANTED


@pytest.mark.parametrize(
    ("name", "stored", "reason"),
    [
        ("a.obj", b"", "no faces"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "names vertex 3 of 3, counted from 0"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "names vertex 0, they count from 1"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nf -1 -2 -3\nv 0 1 0\n", "names vertex -1 of 3"),
        ("a.obj", b"v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", "fewer than 3 coordinates"),
        ("a.obj", b"v 0 0 zero\n", "could not convert"),
        ("a.stl", b"", "no text that begins with solid, nor binary: 0 bytes, not 84"),
        ("a.stl", binary()[:-10], "nor binary: 374 bytes, not 384"),
        ("a.stl", binary()[:80] + bytes(4), "no faces"),
        ("a.stl", ascii_text()[:200].encode(), "without endsolid"),
        ("a.stl", ascii_text().replace("3.000000e+00", "nan", 1).encode(), "no finite numbers"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, stored: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(stored)
    with pytest.raises(ValueError, match=rf"{name} is no readable \{name[1:]} mesh \(.*{reason}.*repair or remove"):
        read_mesh(tmp_path / name)


def test_meshes_are_found_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("b.stl", "a.OFF", "inner/c.obj", "d.ply", "._a.off"):
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in find_meshes(tmp_path)] == ["a.OFF", "b.stl", "inner/c.obj"]
