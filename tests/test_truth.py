"""The synthetic plates know their answers; the methods have to find them.

One small network is trained on demo_1's controls, from the true outlines, and asked about demo_2,
whose layout is mirrored and whose debris tells nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from cellpose.metrics import average_precision as average_precision_of_labels

from plateglass import config, crops
from plateglass.explain import gradcamo, pcim
from plateglass.explain.fidelity import average_precision
from plateglass.models import nuclei, training
from plateglass.models.pool import Pool, Well
from plateglass.stages import segment
from plateglass.synthetic import DEMO, NEGATIVE, POSITIVE, render_site

CONFIG = Path(__file__).parents[1] / "config" / "config.yaml"
CROP = 64
CONTROLS = (NEGATIVE.role, POSITIVE.role)
CHANNELS = DEMO["demo_1"].channels


@dataclass
class Cells:
    """Crops of a plate's control wells in plate units; `other` shows them after the other treatment."""

    crops: torch.Tensor
    other: torch.Tensor
    masks: torch.Tensor
    deciding: torch.Tensor
    levels: torch.Tensor
    labels: torch.Tensor

    def accuracy(self, network, x):
        """Balanced over the classes."""
        called = calls(network, x)
        return np.mean([(called[self.labels == k] == k).float().mean().item() for k in (0, 1)])


def calls(network, x):
    with torch.no_grad():
        return torch.cat([network(part).argmax(1) for part in x.split(128)])


def drawn(plate, rows):
    """(well, class, site) of the control wells in these rows."""
    for well, treated in DEMO[plate].wells.items():
        if treated.role in CONTROLS and well[0] in rows:
            yield well, CONTROLS.index(treated.role), render_site(DEMO[plate], well, 1)


def units(sites):
    """Function from raw fields to plate units, from these sites."""
    low = np.median([np.percentile(s.image, 20, axis=(1, 2, 3)) for s in sites], 0)[:, None, None]
    high = np.median([np.percentile(s.image, 99, axis=(1, 2, 3)) for s in sites], 0)[:, None, None]
    return lambda site: ((site.image[:, 0] - low) / (high - low)).astype(np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Trained on all controls of demo_1 with the demo's own settings."""
    sites = list(drawn("demo_1", "ABCD"))
    scaled = units([site for _, label, site in sites if label == 0])
    side = CROP + 2 * training.MARGIN

    def wells():
        for well, label, site in sites:
            field = scaled(site)
            x, masks, numbers, _ = crops.cut(field, site.cells[0], side, site.nuclei[0])
            level = np.repeat(crops.background(field, site.cells[0])[None], len(x), 0)
            texture = crops.texture(field, site.cells[0], side)
            texture = np.zeros((0, *x.shape[1:]), np.float32) if texture is None else texture[None]
            cells = np.stack([np.ones_like(numbers), numbers], 1)
            yield Well(("demo_1", well), label, x, masks, level, texture, cells)

    pool = Pool.create(tmp_path_factory.mktemp("pool"), wells())
    settings = config.read(CONFIG).train
    task = training.Task("seed0.final", tuple(range(len(pool))), tuple(pool.classes))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield training.fit(pool, settings, task).network.eval()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cells():
    """Two rows of demo_2."""
    sites = list(drawn("demo_2", "BC"))
    scaled = units([site for _, label, site in sites if label == 0])
    rows = []
    for well, label, site in sites:
        treatment = (POSITIVE, NEGATIVE)[label]
        other = render_site(DEMO["demo_2"], well, 1, treatment.response)
        field, labels, nuclei = scaled(site), site.cells[0], site.nuclei[0]
        x, masks, *_ = crops.cut(field, labels, CROP, nuclei)
        deciding, *_ = crops.cut(site.deciding.astype(np.float32), labels, CROP, nuclei)
        level = np.repeat(crops.background(field, labels)[None], len(x), 0)
        exchanged, *_ = crops.cut(scaled(other), labels, CROP, nuclei)
        exchanged = np.where(masks[:, None], exchanged, x)
        own = (deciding[:, 0] > 0.5) & masks
        rows.append((x, exchanged, masks, own, level, np.full(len(x), label)))
    return Cells(*(torch.from_numpy(np.concatenate(column)) for column in zip(*rows)))


def test_nuclei_and_cells_are_found_as_they_were_drawn():
    """With the demo's settings, in one crowded field of each plate."""
    settings = config.read(CONFIG)
    segmenter = nuclei.load(settings.segment.nuclei.model)
    truth, found = {"nuclei": [], "cells": []}, {"nuclei": [], "cells": []}
    for plate, well in (("demo_1", "D06"), ("demo_2", "C05")):
        site = render_site(DEMO[plate], well, 1)
        pixel_size = DEMO[plate].pixel_size_um
        *both, counts = segment.labels(
            site.image, CHANNELS, settings.segment, segmenter, pixel_size
        )
        assert abs(counts["Count_Cells"] - site.cells.max()) <= 0.15 * site.cells.max()
        for name, labels in zip(truth, both):
            truth[name].append(getattr(site, name)[0])
            found[name].append(labels)
    precision = {n: average_precision_of_labels(truth[n], found[n], [0.5, 0.75])[0] for n in truth}
    assert (precision["nuclei"].mean(0) >= [0.85, 0.85]).all()
    assert (precision["cells"].mean(0) >= [0.85, 0.75]).all()


def test_the_class_is_learnt_across_the_mirrored_layout(network, cells):
    assert len(cells.labels) > 200
    assert cells.accuracy(network, cells.crops) >= 0.95


def test_the_call_flips_with_the_cells_own_pixels(network, cells):
    """Surroundings stay as they were: only the cell's deciding pixels are of the other class."""
    before, after = calls(network, cells.crops), calls(network, cells.other)
    right = before == cells.labels
    assert (after[right] != before[right]).float().mean() >= 0.9


def test_without_the_cell_the_surroundings_tell_little(network, cells):
    erased = crops.erase(cells.crops, cells.masks, cells.levels)
    assert cells.accuracy(network, erased) <= 0.7


def test_the_marker_channel_decides_by_weight_and_by_ablation(network, cells):
    alpha = dict(zip(CHANNELS, network.blend.importance().tolist()))
    assert alpha["Marker"] > 0.6 and max(alpha["DNA"], alpha["Actin"]) < 0.25
    shuffled = torch.randperm(len(cells.crops), generator=torch.Generator().manual_seed(0))
    full = cells.accuracy(network, cells.crops)
    for index, channel in enumerate(CHANNELS):
        x = cells.crops.clone()
        x[:, index] = x[shuffled, index]
        accuracy = cells.accuracy(network, x)
        assert accuracy < 0.6 if channel == "Marker" else accuracy > full - 0.05, channel


def test_attention_lies_on_the_cell(network, cells):
    audit = gradcamo(network, cells.crops, cells.masks)
    assert float(np.isnan(np.asarray(audit.score)).mean()) <= 0.01
    for label in (0, 1):
        assert float(np.nanmean(np.asarray(audit.enrichment)[cells.labels == label])) > 1.4


def test_pcim_finds_the_pixels_that_decide(network, cells):
    """Exchange the map's top 12 % for what the other treatment shows there: the call flips.

    More often than with the brightest pixels of Marker, or the map of a network that learnt
    nothing; hardly ever with random ones. The true pixels are well above chance in both classes.
    """
    some = slice(None, None, 6)
    x, other, labels = cells.crops[some], cells.other[some], cells.labels[some]
    maps, truth = pcim(network, x), cells.deciding[some]
    precision = average_precision(maps, truth)
    assert all(precision[labels == k].mean() > 1.7 * truth.float().mean() for k in (0, 1))

    def flips(relevance):
        flat = relevance.flatten(1)
        top = torch.zeros_like(flat, dtype=torch.bool)
        top.scatter_(1, flat.topk(int(0.12 * flat.shape[1])).indices, True)
        exchanged = torch.where(top.view(len(x), 1, CROP, CROP), other, x)
        return (calls(network, exchanged) != calls(network, x)).float().mean().item()

    torch.manual_seed(0)
    untrained = training.make(config.read(CONFIG).train, len(CHANNELS)).eval()
    found = flips(maps)
    assert found > 0.5
    assert found > flips(pcim(untrained, x)) + 0.05
    assert found > flips(x[:, CHANNELS.index("Marker")]) + 0.05
    assert flips(torch.rand(len(x), CROP, CROP)) < 0.15
