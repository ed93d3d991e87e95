"""Triangle meshes: reading ``.off`` files, and filling voxels with them."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from lit_gen.data.voxels import padding

SPACING = 0.7
"""Of the points on a triangle, in voxels. From any place a point is then less than half a voxel away, so that no path
from voxel to neighbouring voxel slips through the surface, and what it encloses is filled."""


def read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mesh in the Object File Format; polygons become fans of triangles, colours are ignored.

    Files of ModelNet may have the counts in the line of the magic word: ``OFF490 518 0``.

    Returns:
        Vertices, float64 ``(V, 3)``, and triangles, int64 ``(F, 3)``.

    Raises:
        ValueError: it is no such file, or damaged; the message names it.
    """
    try:
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
            corners = [int(number) for number in numbers[1 : 1 + int(numbers[0])]]
            triangles += [(corners[0], *pair) for pair in pairwise(corners[1:])]
        faces = np.array(triangles, np.int64).reshape(-1, 3)
        if not len(faces) or not np.isfinite(vertices).all():
            raise ValueError("it has no faces, or vertices that are no finite numbers")
        if faces.min() < 0 or faces.max() >= num_vertices:
            raise ValueError(f"a face names vertex {faces.max()} of {num_vertices}")
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is no readable .off mesh ({error}): repair or remove it") from error
    return vertices, faces


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
