"""Shaded pictures of voxels, and boxes on images, without a graphics library."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

AZIMUTH, ELEVATION = -60.0, 25.0
BACKGROUND = (1.0, 1.0, 1.0)
SURFACE = (0.38, 0.64, 0.94)
LIGHT = (0.45, -0.6, 0.7)  # from above, over the viewer's right shoulder: (right, into the picture, up)
AMBIENT = 0.45
VIEW = 0.85  # of the picture's half extent that no view of the grid exceeds: shapes leave the corners empty
RAYS = 4096  # followed at once: bounds the memory


BOX_COLOURS = ((1.0, 0.0, 0.0), (0.0, 0.8, 0.0), (0.2, 0.4, 1.0))


class Rendering(NamedTuple):
    """Pictures of N shapes."""

    images: Tensor  # (N, 3, H, W) in [0, 1], on white
    masks: Tensor  # (N, 1, H, W) in [0, 1]: how much of each pixel the shape covers


def draw_boxes(images: Tensor, boxes: Tensor, line_widths: Tensor) -> Tensor:
    """Images with the outlines of boxes: red, green and blue in turn, their edges smooth.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        boxes: ``(B, K, 4)`` as (x0, y0, x1, y1), in pixels; what lies outside of an image is moved to its rim.
        line_widths: ``(B, K)``, in pixels, half of each line inside its box.

    Returns:
        ``(B, 3, H, W)``; the first box lies on top.
    """
    height, width = images.shape[-2:]
    limits = torch.tensor([width - 1, height - 1]).repeat(2)
    boxes = boxes.minimum(limits).clamp(min=0)[..., None, None]
    x, y = torch.arange(width), torch.arange(height)[:, None]
    for number in reversed(range(boxes.shape[1])):
        x0, y0, x1, y1 = boxes[:, number].unbind(1)  # (B, 1, 1) each
        # How far a pixel lies outside of the box, negative within it.
        outside = torch.maximum((x - (x0 + x1) / 2).abs() - (x1 - x0) / 2, (y - (y0 + y1) / 2).abs() - (y1 - y0) / 2)
        covered = (0.5 * line_widths[:, number, None, None] + 0.5 - outside.abs()).clamp(0, 1)[:, None]
        colour = torch.tensor(BOX_COLOURS[number % len(BOX_COLOURS)]).view(3, 1, 1)
        images = torch.lerp(images, colour, covered)
    return images


def render_voxels(
    voxels: Tensor, azimuth: float = AZIMUTH, elevation: float = ELEVATION, size: int = 96, threshold: float = 0.5
) -> Tensor:
    """The images of :func:`render`: ``(N, 3, size, size)``."""
    return render(voxels, azimuth, elevation, size, threshold).images


def render(
    voxels: Tensor,
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
    size: int = 96,
    threshold: float = 0.5,
    paint: Tensor | None = None,
) -> Rendering:
    """Solid voxels as an orthographic camera sees them, lit by one lamp and darkened in corners and with depth.

    Every ray is followed exactly, from voxel to voxel (Amanatides & Woo 1987, A fast voxel traversal algorithm for ray
    tracing); as all rays are parallel, the way through the grid is found once for all N of them.

    Args:
        voxels: ``(N, 1, D, H, W)``, occupancies or their probabilities; D, H and W are x, y and z, with z upwards.
        azimuth: degrees by which the camera is turned about the vertical, counter-clockwise from above; at 0 it stands
            at large x and looks towards small x.
        elevation: degrees by which it looks down.
        size: height and width of the pictures, in pixels.
        threshold: voxels above this are solid.
        paint: ``(N, 3, D, H, W)`` in [0, 1], the colour of each voxel. Default: all of one blue.

    Returns:
        Images and masks, float32 on the CPU.

    Raises:
        ValueError: these are no voxels, or the paint is not for these.
    """
    if voxels.ndim != 5 or voxels.shape[1] != 1:
        raise ValueError(f"voxels must be (N, 1, D, H, W), got {tuple(voxels.shape)}")
    if paint is not None and paint.shape != (len(voxels), 3, *voxels.shape[2:]):
        wanted = (len(voxels), 3, *voxels.shape[2:])
        raise ValueError(f"the paint of voxels {tuple(voxels.shape)} must be {wanted}, got {tuple(paint.shape)}")
    solid = (voxels.detach().float().cpu()[:, 0] > threshold).float()  # (N, D, H, W)
    grid = torch.tensor(solid.shape[1:])
    right, forward, up = camera(azimuth, elevation)
    # Two by two rays for each pixel; what stands upright stays in the picture while the camera goes around.
    floor, radius = grid[:2].float().norm() / 2, grid.float().norm() / 2
    tilt = math.radians(elevation)
    half = VIEW * max(floor, floor * abs(math.sin(tilt)) + grid[2] / 2 * math.cos(tilt))
    across = ((torch.arange(2 * size) + 0.5) / size - 1) * half
    plane = across[None, :, None] * right - across[:, None, None] * up  # (2 size, 2 size, 3), the first row on top
    starts = (plane - 2 * radius * forward + grid / 2).flatten(0, 1)
    surroundings = neighbourhood(solid)
    lamp = torch.tensor(LIGHT) @ torch.stack([right, forward, up])
    lamp = lamp / lamp.norm()
    shades = [shade(solid, surroundings, part, forward, lamp, radius) for part in torch.split(starts, RAYS)]
    light, seen, cells = (torch.cat(parts, 1) for parts in zip(*shades, strict=True))  # (N, rays), three times
    tint = torch.tensor(SURFACE).view(3, 1)
    if paint is not None:
        tint = paint.detach().float().cpu().flatten(2).gather(2, cells[:, None].expand(-1, 3, -1))  # (N, 3, rays)
    # The brightest places lean towards white, as a highlight would.
    lit = torch.lerp(light[:, None] * tint, torch.ones(1), 1.2 * (light[:, None] - 0.7).clamp(min=0))
    pixels = torch.where(seen[:, None], lit, torch.tensor(BACKGROUND).view(3, 1))
    layers = torch.cat([pixels.clamp(0, 1), seen[:, None].float()], 1)
    images, masks = F.avg_pool2d(layers.unflatten(2, (2 * size, 2 * size)), 2).split([3, 1], 1)
    return Rendering(images, masks)


def camera(azimuth: float, elevation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors to the right, into the picture, and upwards, in grid coordinates."""
    # A hundredth of a degree keeps every ray off the planes between voxels.
    turn, tilt = math.radians(azimuth + 0.01), math.radians(elevation + 0.01)
    forward = -torch.tensor([math.cos(tilt) * math.cos(turn), math.cos(tilt) * math.sin(turn), math.sin(tilt)])
    right = torch.tensor([-math.sin(turn), math.cos(turn), 0.0])
    return right, forward, torch.linalg.cross(right, forward)


def neighbourhood(solid: Tensor) -> Tensor:
    """How much around each place is solid, and the way out of it, ``(N, 4, D, H, W)``."""
    near = F.avg_pool3d(solid[:, None], 3, 1, 1)
    wide = F.avg_pool3d(F.avg_pool3d(near, 3, 1, 1), 3, 1, 1)
    padded = F.pad(near, 6 * [1])
    inner = [slice(1, -1), slice(1, -1), slice(1, -1)]
    slopes = []
    for axis in range(3):
        before, after = inner.copy(), inner.copy()
        before[axis], after[axis] = slice(None, -2), slice(2, None)
        slopes.append(padded[:, :, *before] - padded[:, :, *after])
    return torch.cat([(near + wide) / 2, *slopes], 1)


def shade(
    solid: Tensor, surroundings: Tensor, starts: Tensor, forward: Tensor, lamp: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness ``(N, rays)`` where each ray meets a solid voxel, whether it does, and the number of that voxel.

    Args:
        solid: ``(N, D, H, W)`` of 0 and 1.
        surroundings: of :func:`neighbourhood`.
        starts: ``(rays, 3)`` in front of the grid.
        forward: ``(3,)`` their common direction.
        lamp: ``(3,)`` direction towards the light.
        radius: half the diagonal of the grid.
    """
    sides = solid.shape[1:]
    limits = torch.tensor(sides)
    # Where a ray crosses the planes between voxels, in order: between two of them it is in one voxel.
    planes = [(torch.arange(side + 1) - starts[:, axis, None]) / forward[axis] for axis, side in enumerate(sides)]
    times, order = torch.cat(planes, 1).sort(1)
    places = starts[:, None] + (times[:, :-1, None] + times[:, 1:, None]) / 2 * forward
    cells = places.floor().long()  # (rays, steps, 3)
    nothing = torch.zeros(len(solid), len(starts))
    filled = solid.any(0).nonzero()
    if not len(filled):
        return nothing, nothing.bool(), nothing.long()
    inside = ((cells >= filled.amin(0)) & (cells <= filled.amax(0))).all(2)
    number = (cells[..., 0] * sides[1] + cells[..., 1]) * sides[2] + cells[..., 2]
    number = number.where(inside, solid[0].numel())  # what lies outside is empty
    entry, steps = inside.to(torch.uint8).argmax(1), int(inside.sum(1).max())
    number = number.gather(1, (entry[:, None] + torch.arange(steps)).clamp(max=number.shape[1] - 1))
    padded = F.pad(solid.flatten(1).to(torch.uint8), (0, 1))
    if not steps:
        return nothing, nothing.bool(), nothing.long()
    met = padded.index_select(1, number.flatten()).view(len(solid), *number.shape)  # (N, rays, steps)
    step = met.argmax(2)
    seen = met.gather(2, step[:, :, None])[:, :, 0].bool()
    cell = number.expand(len(solid), -1, -1).gather(2, step[:, :, None])[:, :, 0].where(seen, 0)
    rays = seen.any(0).nonzero()[:, 0]

    step = (entry + step)[:, rays].T  # (rays, N)
    time = times[rays].gather(1, step).T
    axis = torch.bucketize(order[rays].gather(1, step).T.contiguous(), (limits + 1).cumsum(0)[:2], right=True)
    outward = -forward.sign()[:, None] * F.one_hot(axis, 3).transpose(1, 2)  # (N, 3, rays): of the face that is met
    point = starts[rays].T + time[:, None] * forward[:, None]
    # Half a voxel outside of the face, in the coordinates of grid_sample, which puts x last.
    probe = 2 * (point + 0.5 * outward) / limits[:, None] - 1
    around = F.grid_sample(surroundings, probe.flip(1).transpose(1, 2)[:, :, None, None], align_corners=False)
    crowd, slope = around[:, 0, :, 0, 0], around[:, 1:, :, 0, 0]
    # Mostly the smooth normal: the faces alone would show slanted and round surfaces as stripes.
    normal = unit(unit(slope) + 0.4 * outward)
    lit = AMBIENT + (1 - AMBIENT) * torch.einsum("nar,a->nr", normal, lamp).clamp(min=0)
    # A plane fills a third of its neighbourhood; what has more around it lies in a corner.
    open_sky = (1 - 1.6 * (crowd - 0.3).clamp(min=0)).clamp(min=0.3)
    nearness = 1.1 - 0.15 * (time / radius - 1)  # 1.1 at the front of the enclosing ball, 0.8 at its back
    return nothing.index_copy(1, rays, lit * open_sky * nearness), seen, cell


def unit(vectors: Tensor) -> Tensor:
    """Vectors ``(N, 3, ...)`` of length 1."""
    return vectors * vectors.square().sum(1, keepdim=True).clamp(min=1e-12).rsqrt()
