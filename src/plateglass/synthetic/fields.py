"""Draws one field of fluorescent cells and the truth behind it.

The class is in one place: the share of `Marker` that lies in the nucleus rather than in the ring
around it. The cell's total stays, expression varies from cell to cell more than the class could
move it, and neither shape, `DNA` nor `Actin` knows of the treatment. What else goes with the class
is a trap on purpose: debris between the cells (`PlateSpec.decoy`), the place on the plate, and
neighbours, which were treated too.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

MARGIN = 40  # pixels drawn around the field, so that cells enter it from outside
NUCLEUS_RADIUS = 11.0
CELL_RADIUS = 23.0
RING = 5.0  # width of the perinuclear ring that exchanges marker with the nucleus
PSF = 1.1
OFFSET, GAIN, READ_NOISE = 110.0, 2.2, 3.0  # grey levels; electrons a grey level; grey levels
BACKGROUND = {"DNA": 25.0, "Actin": 45.0, "Marker": 35.0}  # grey levels above the offset
BRIGHTNESS = {"DNA": 1500.0, "Actin": 900.0, "Marker": 1000.0}
DEBRIS = (2.0, 40.0)  # specks a 384² field at response 0 and 1


@dataclass(frozen=True)
class Site:
    """A field and its truth.

    Attributes
    ----------
    image: uint16 (c, 1, y, x), channels as in the specification.
    nuclei, cells: int32 (1, y, x), numbered 1..N alike; a cell without at least 20 pixels of its
        nucleus inside the field is drawn but not labelled.
    deciding: bool (1, y, x), where `Marker`'s expected value depends on the treatment. With
        ``cells == n`` they are the deciding pixels of cell n.
    shares: float (N,), nuclear share of the marker of cells 1..N.
    """

    image: np.ndarray
    nuclei: np.ndarray
    cells: np.ndarray
    deciding: np.ndarray
    shares: np.ndarray


def draw(spec, well: str, site: int, response: float | None = None) -> Site:
    """See `plateglass.synthetic.render_site`."""
    # One stream for each thing drawn: another response leaves everything else where it was.
    root = np.random.SeedSequence([spec.seed, zlib.crc32(f"{spec.name}/{well}/{site}".encode())])
    shapes, textures, marker, debris, camera = map(np.random.default_rng, root.spawn(5))
    treated = spec.wells[well].response if response is None else response
    side = spec.size + 2 * MARGIN

    nuclei, cells = _shapes(shapes, side, spec.cells * (side / spec.size) ** 2)
    count = int(nuclei.max())
    shares = np.clip(treated + marker.normal(0, 0.04, count), 0.05, 0.95)
    layers = {"DNA": _dna(textures, nuclei), "Actin": _actin(textures, nuclei, cells)}
    layers["Marker"], moving = _marker(marker, nuclei, cells, shares)
    # The decoy's rate is the well's own, also when the response is replaced.
    rate = spec.wells[well].response if spec.decoy else debris.random()
    specks = _debris(debris, cells, rate)
    for channel, amount in (("Actin", 0.5), ("Marker", 1.0)):
        layers[channel] = layers[channel] + amount * specks

    inside = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    light = _illumination(spec, well)
    planes = []
    for channel in spec.channels:
        blurred = ndimage.gaussian_filter(layers[channel], PSF)
        haze = 0.06 * ndimage.gaussian_filter(layers[channel], 14)
        signal = BRIGHTNESS[channel] * (blurred + haze)[inside] + BACKGROUND[channel]
        electrons = camera.poisson(np.maximum(signal * light, 0) * GAIN)
        plane = OFFSET + electrons / GAIN + camera.normal(0, READ_NOISE, electrons.shape)
        planes.append(np.clip(np.rint(plane), 0, 65535).astype(np.uint16))

    nuclei, cells, shares = _visible(nuclei[inside], cells[inside], shares)
    deciding = ndimage.gaussian_filter(moving, PSF)[inside] > 0.25
    return Site(
        image=np.stack(planes)[:, None],
        nuclei=nuclei[None],
        cells=cells[None],
        deciding=(deciding & (cells > 0))[None],
        shares=shares,
    )


def _shapes(rng, side: int, expected: float):
    """Labels of nuclei and cells (y, x): star-shaped, where two meet the nearer one wins."""
    centres = _centres(rng, side, int(rng.poisson(expected)))
    count = len(centres)
    nucleus_near, cell_near = np.full((side, side), np.inf), np.full((side, side), np.inf)
    nuclei, cells = np.zeros((side, side), np.int32), np.zeros((side, side), np.int32)
    for number in range(1, count + 1):
        y, x = centres[number - 1]
        reach = 2 * int(CELL_RADIUS)
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        window = np.s_[top : int(y) + reach, left : int(x) + reach]
        rows, columns = np.ogrid[window]
        rows, columns = rows[rows[:, 0] < side] - y, columns[:, columns[0] < side] - x
        distance, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
        axis = rng.uniform(0, np.pi)
        nucleus = NUCLEUS_RADIUS * rng.lognormal(0, 0.13)
        outline = nucleus * _outline(rng, angle, axis, rng.uniform(0.0, 0.18), 0.03)
        nearer = distance / outline
        won = (nearer < 1) & (nearer < nucleus_near[window])
        nuclei[window][won], nucleus_near[window][won] = number, nearer[won]
        body = CELL_RADIUS * rng.lognormal(0, 0.12)
        outline = np.maximum(
            body * _outline(rng, angle, axis, rng.uniform(0.05, 0.3), 0.07), outline + 3
        )
        nearer = distance / outline
        won = (nearer < 1) & (nearer < cell_near[window])
        cells[window][won], cell_near[window][won] = number, nearer[won]
    cells[nuclei > 0] = nuclei[nuclei > 0]
    return _whole(nuclei, cells, count)


def _centres(rng, side: int, count: int):
    """Places of the cells; most keep a distance, some nuclei touch (pairs after division)."""
    kept = []
    for _ in range(60 * count):
        if len(kept) == count:
            break
        if kept and rng.random() < 0.02:
            angle = rng.uniform(0, 2 * np.pi)
            step = rng.uniform(1.75, 2.1) * NUCLEUS_RADIUS
            place = kept[rng.integers(len(kept))] + step * np.array([np.sin(angle), np.cos(angle)])
            apart = 1.7 * NUCLEUS_RADIUS
        else:
            place, apart = rng.uniform(0, side, 2), 1.45 * CELL_RADIUS
        near = np.hypot(*(np.array(kept) - place).T).min() if kept else np.inf
        if near > apart and (place >= 0).all() and (place < side).all():
            kept.append(place)
    return np.array(kept).reshape(-1, 2)


def _outline(rng, angle, axis: float, elongation: float, roughness: float):
    """Radius by angle, mean about 1: an ellipse with some bumps."""
    radius = 1 + elongation * np.cos(2 * (angle - axis))
    for wave in (3, 4, 5):
        radius = radius + rng.normal(0, 3 * roughness / wave) * np.cos(
            wave * angle + rng.uniform(0, 2 * np.pi)
        )
    return np.maximum(radius, 0.45)


def _whole(nuclei, cells, count: int):
    """Drop what another cell cut off; number what is left 1..N."""
    number = 0
    numbers = np.zeros(count + 1, np.int32)
    for label, window in enumerate(ndimage.find_objects(cells, count), start=1):
        if window is None:
            continue
        parts, _ = ndimage.label(cells[window] == label)
        core = np.bincount(parts[nuclei[window] == label]) if parts.any() else np.zeros(1)
        if core.size == 0 or core[1:].sum() == 0:
            cells[window][parts > 0] = 0
            continue
        lost = (parts > 0) & (parts != core[1:].argmax() + 1)
        cells[window][lost] = 0
        nuclei[window][lost] = 0
        number += 1
        numbers[label] = number
    return numbers[nuclei], numbers[cells]


def _visible(nuclei, cells, shares):
    """Labels of the cells whose nucleus is in the field, numbered again."""
    area = np.bincount(nuclei.ravel(), minlength=len(shares) + 1)
    area[0] = 0
    numbers = np.where(area >= 20, np.cumsum(area >= 20), 0).astype(np.int32)
    return numbers[nuclei], numbers[cells], shares[area[1:] >= 20]


def _noise(rng, shape, scale: float):
    """Smooth noise, standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), scale)
    return noise / noise.std()


def _fibres(rng, shape, angle: float):
    """Smooth noise drawn out along one direction; its dark half is 0."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    passed = np.exp(-2 * np.pi**2 * ((6.0 * along) ** 2 + (0.8 * across) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * passed, shape)
    return np.maximum(noise / noise.std(), 0)


def _per_cell(rng, labels, spread: float):
    """A lognormal level for each cell, spread over its pixels; 0 outside."""
    levels = np.concatenate([[0.0], rng.lognormal(0, spread, int(labels.max()))])
    return levels[labels]


def _depth(labels):
    """Distance of each pixel to the edge of its object, pixels."""
    edge = ndimage.grey_dilation(labels, (3, 3)) != ndimage.grey_erosion(labels, (3, 3))
    return ndimage.distance_transform_edt((labels > 0) & ~edge)


def _dna(rng, nuclei):
    body = 1 - np.exp(-(_depth(nuclei) + 1) / 2.5)
    chromatin = 1 + 0.16 * _noise(rng, nuclei.shape, 1.6) + 0.1 * _noise(rng, nuclei.shape, 4)
    nucleoli = 1 - 0.45 * (_noise(rng, nuclei.shape, 2.2) > 1.9)
    return _per_cell(rng, nuclei, 0.25) * body * np.clip(chromatin, 0.2, None) * nucleoli


def _actin(rng, nuclei, cells):
    depth = _depth(cells)
    body = 0.35 + 0.65 * (1 - np.exp(-depth / 6))
    cortex = 0.5 * np.exp(-((depth - 1) ** 2) / 2) * (cells > 0)
    fibres = np.zeros(cells.shape)
    directions = 4
    for turn in range(directions):
        drawn_out = _fibres(rng, cells.shape, np.pi * turn / directions)
        fibres = np.where(cells % directions == turn, drawn_out, fibres)
    texture = 1 + 0.3 * fibres + 0.12 * _noise(rng, cells.shape, 2)
    over_nucleus = np.where(nuclei > 0, 0.7, 1.0)
    return (
        _per_cell(rng, cells, 0.25) * (body * np.clip(texture, 0.1, None) + cortex) * over_nucleus
    )


def _marker(rng, nuclei, cells, shares):
    """Marker's level and how far the treatment moves it (both y, x; the latter 0 to 1)."""
    count = len(shares)
    ring = (ndimage.distance_transform_edt(nuclei == 0) <= RING) & (nuclei == 0)
    # The distance may be to a neighbour's nucleus: the ring is kept to its own cell's surroundings.
    nearest = ndimage.distance_transform_edt(
        nuclei == 0, return_distances=False, return_indices=True
    )
    ring &= nuclei[tuple(nearest)] == cells
    ring_of = np.where(ring, cells, 0)
    in_nucleus = np.bincount(nuclei.ravel(), minlength=count + 1)[1:]
    in_ring = np.maximum(np.bincount(ring_of.ravel(), minlength=count + 1)[1:], 1)
    total = (in_nucleus + in_ring).astype(float)
    nuclear = np.concatenate([[0], shares * total / in_nucleus])
    perinuclear = np.concatenate([[0], (1 - shares) * total / in_ring])
    cytoplasm = 0.45 * (1 - np.exp(-(_depth(cells) + 1) / 4))
    level = np.where(nuclei > 0, nuclear[nuclei], np.where(ring, perinuclear[ring_of], cytoplasm))
    grain = 1 + 0.22 * _noise(rng, cells.shape, 1.3) + 0.1 * _noise(rng, cells.shape, 4)
    expression = _per_cell(rng, cells, 0.3)
    return level * expression * np.clip(grain, 0.2, None), ((nuclei > 0) | ring).astype(float)


def _debris(rng, cells, rate: float):
    """Specks and smears out of focus, between the cells only."""
    free = ndimage.distance_transform_edt(cells == 0) > 5
    low, high = DEBRIS
    specks = rng.poisson((low + (high - low) * rate) * cells.size / 384**2)
    places = rng.integers(0, cells.shape[0], (specks, 2))
    sharp, smeared = np.zeros(cells.shape), np.zeros(cells.shape)
    for (y, x), strength in zip(places, rng.lognormal(0, 0.5, specks), strict=True):
        if free[y, x]:
            target, weight = (sharp, 26.0) if strength > 1 else (smeared, 80.0)
            target[y, x] += weight * strength
    drawn = ndimage.gaussian_filter(sharp, 1.3) + ndimage.gaussian_filter(smeared, 3)
    return np.where(cells == 0, drawn, 0.0)


def _illumination(spec, well: str):
    """Vignetting of the objective, and the lamp's decay from the plate's left edge to its right."""
    y, x = np.mgrid[-1 : 1 : spec.size * 1j, -1 : 1 : spec.size * 1j]
    columns = sorted({name[-2:] for name in spec.wells})
    across = columns.index(well[-2:]) / max(len(columns) - 1, 1) - 0.5
    return (1 - 0.16 * across) * (1 - 0.12 * (y**2 + x**2)) * (1 + 0.05 * x)
