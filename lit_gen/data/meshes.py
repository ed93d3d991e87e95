"""Triangle meshes: reading ``.off``, ``.obj`` and ``.stl`` files, and filling voxels with them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from lit_gen.data.voxels import padding

SPACING = 0.7
"""Of the points on a triangle, in voxels. From any place a point is then less than half a voxel away, so that no path
from voxel to neighbouring voxel slips through the surface, and what it encloses is filled."""


Mesh = tuple[np.ndarray, np.ndarray]
"""Vertices, float64 ``(V, 3)``, and triangles, int64 ``(F, 3)``."""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file an error is about."""
    try:
        yield
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is no readable {path.suffix} mesh ({error}): repair or remove it") from error


def _fan(corners: Sequence[int]) -> list[tuple[int, ...]]:
    return [(corners[0], *pair) for pair in pairwise(corners[1:])]


def _checked(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    if not len(faces) or not np.isfinite(vertices).all():
        raise ValueError("it has no faces, or vertices that are no finite numbers")
    if faces.min() < 0 or faces.max() >= len(vertices):
        wrong = faces[(faces < 0) | (faces >= len(vertices))][0]
        raise ValueError(f"a face names vertex {wrong} of {len(vertices)}, counted from 0")
    return vertices, faces


def read_off(path: Path) -> Mesh:
    """Read a mesh in the Object File Format; polygons become fans of triangles, colours are ignored.

    Files of ModelNet may have the counts in the line of the magic word: ``OFF490 518 0``.

    Raises:
        ValueError: it is no such file, or damaged; the message names it.
    """
    with _naming(path):
        text = path.read_text(encoding="ascii", errors="strict")
        lines = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
        if not lines or not lines[0].startswith("OFF"):
            raise ValueError("it does not begin with OFF")
        lines[0] = lines[0].removeprefix("OFF").strip()
        first = 0 if lines[0] else 1
        num_vertices, num_faces = map(int, lines[first].split()[:2])
        rows = lines[first + 1 : first + 1 + num_vertices + num_faces]
        if len(rows) < num_vertices + num_faces:
            raise ValueError(f"it ends after {len(rows)} of {num_vertices} vertices and {num_faces} faces")
        vertices = np.array([row.split()[:3] for row in rows[:num_vertices]], np.float64).reshape(-1, 3)
        triangles = []
        for row in rows[num_vertices:]:
            numbers = row.split()
            triangles += _fan([int(number) for number in numbers[1 : 1 + int(numbers[0])]])
        return _checked(vertices, np.array(triangles, np.int64).reshape(-1, 3))


def read_obj(path: Path) -> Mesh:
    """Read a mesh of Wavefront: ``v`` and ``f`` alone; polygons become fans of triangles.

    Faces name vertices from 1 on, or backwards from the newest (-1), with or without texture and normal (``3/1/2``).

    Raises:
        ValueError: it has no faces, or is damaged; the message names it.
    """
    with _naming(path):
        # Names of materials, and comments, may be in any encoding.
        text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
        vertices: list[list[float]] = []
        triangles: list[tuple[int, ...]] = []
        for line in text.splitlines():
            kind, *entries = line.partition("#")[0].split() or [""]
            if kind == "v":
                vertices.append([float(entry) for entry in entries[:3]])
            elif kind == "f":
                numbers = [int(entry.partition("/")[0]) for entry in entries]
                if 0 in numbers:
                    raise ValueError("a face names vertex 0, they count from 1")
                triangles += _fan([number - 1 if number > 0 else len(vertices) + number for number in numbers])
        if any(len(vertex) < 3 for vertex in vertices):
            raise ValueError("a vertex has fewer than 3 coordinates")
        return _checked(np.array(vertices).reshape(-1, 3), np.array(triangles, np.int64).reshape(-1, 3))


STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
STL_HEAD = 84  # bytes: a comment of 80, and the number of triangles


def read_stl(path: Path) -> Mesh:
    """Read a mesh of stereolithography, binary or text; corners in the same place become one vertex.

    Raises:
        ValueError: it is neither, or damaged; the message names it.
    """
    with _naming(path):
        stored = path.read_bytes()
        whole = STL_HEAD + STL_TRIANGLE.itemsize * int.from_bytes(stored[80:STL_HEAD], "little")
        if len(stored) == whole:  # a binary one may begin with the word of a text, too
            corners = np.frombuffer(stored, STL_TRIANGLE, offset=STL_HEAD)["corners"].astype(np.float64)
        elif stored.lstrip()[:5].lower() == b"solid":
            lines = [line.split() for line in stored.decode("ascii", errors="replace").lower().splitlines()]
            found = [words[1:4] for words in lines if words[:1] == ["vertex"]]
            if len(found) % 3 or not any(words[:1] == ["endsolid"] for words in lines):
                raise ValueError(f"it ends after {len(found)} corners, without endsolid")
            corners = np.array(found, np.float64)
        else:
            raise ValueError(f"it is no text that begins with solid, nor binary: {len(stored)} bytes, not {whole}")
        vertices, numbers = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
        return _checked(vertices, numbers.reshape(-1, 3).astype(np.int64))


READERS: dict[str, Callable[[Path], Mesh]] = {".off": read_off, ".obj": read_obj, ".stl": read_stl}
"""By the ends of file names, in small letters."""


def find_meshes(folder: Path) -> list[Path]:
    """Files below a folder that :func:`read_mesh` reads, sorted; hidden ones are left out."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in READERS and not path.name.startswith("."))
    return sorted(path for path in files if path.is_file())


def read_mesh(path: Path) -> Mesh:
    """Read a mesh in the format that the name ends in: ``.off``, ``.obj`` or ``.stl``.

    Raises:
        ValueError: it is no such file, or damaged; the message names it.
    """
    return READERS[path.suffix.lower()](path)


def surface_points(vertices: np.ndarray, faces: np.ndarray, spacing: float) -> np.ndarray:
    """Points ``(P, 3)`` on all triangles, no farther from each other than ``spacing``."""
    corners = vertices[faces]  # (F, 3, 3)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    pieces = np.maximum(1, np.ceil(longest / spacing)).astype(int)
    points = [vertices[np.unique(faces)]]
    for count in np.unique(pieces[pieces > 1]):
        i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        weights = np.stack([i, j, count - i - j], -1)[i + j <= count] / count  # (lattice, 3)
        points.append((weights @ corners[pieces == count]).reshape(-1, 3))
    return np.concatenate(points)


def voxelize(vertices: np.ndarray, faces: np.ndarray, size: int = 30, rotations: int = 12) -> np.ndarray:
    """Fill a grid with a mesh, turned about z, as Wu et al. (2015) do.

    In each rotation the bounding box is centred, and its largest extent fills the grid but for its padding (24 of 30
    voxels). Voxels that the surface passes are marked, and whatever they enclose; an open mesh stays hollow.

    Args:
        vertices: ``(V, 3)``, z upwards.
        faces: ``(F, 3)``.
        size: voxels along each side.
        rotations: angles, evenly spread from 0, counter-clockwise as seen from above.

    Returns:
        bool ``(rotations, size, size, size)``: x, y and z.
    """
    edge = padding(size)
    extent = size - 2 * edge
    angles = 2 * math.pi / rotations * np.arange(rotations)
    turns = [
        np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]]) for a in angles.tolist()
    ]
    used = vertices[np.unique(faces)]
    boxes = [(turned.min(0), turned.max(0)) for turned in (used @ turn.T for turn in turns)]
    spans = [float((high - low).max()) for low, high in boxes]
    if min(spans) <= 0:
        raise ValueError("the mesh is a single point, which has no shape")
    points = surface_points(vertices, faces, SPACING * min(spans) / extent)
    grids = np.zeros((rotations, size, size, size), bool)
    for grid, turn, (low, high), span in zip(grids, turns, boxes, spans, strict=True):
        # Rounding must not decide on which side of a voxel's wall a face in the middle of the box lies.
        places = (points @ turn.T - (low + high) / 2) * (extent / span) + extent / 2 - 1e-6
        cells = edge + np.clip(np.floor(places), 0, extent - 1).astype(int)
        grid[tuple(cells.T)] = True
        outside = ndimage.label(np.pad(~grid, 1, constant_values=True))[0]
        grid |= (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return grids
