"""Classical features: hand-computed values, and cp_measure as the reference column by column."""

import numpy as np
import pytest
from cp_measure import bulk

from plateglass.measure import classical, names

CHANNELS = ["DNA", "GFP"]


def field(seed: int = 0, size: int = 96, dtype=np.uint16):
    """A random field: 14 blobs that touch, nuclei within, two channels of noise over gradients."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    points = rng.uniform(4, size - 4, (14, 2))
    distance = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    distance += rng.uniform(0, 4, 14)
    nearest = distance.argmin(-1) + 1
    depth = distance.min(-1)
    radius = rng.uniform(7, 13, 14)[nearest - 1]
    cells = np.where(depth < radius, nearest, 0).astype(np.int32)
    nuclei = np.where(depth < radius * 0.55, nearest, 0).astype(np.int32)
    image = np.stack([60 + 20 * np.sin(y / 9), 40 + x / 4]) + rng.gamma(4, 8, (2, size, size))
    return np.clip(image, 0, 255).astype(dtype), nuclei, cells


def reference(image, labels, windows):
    """cp_measure's own functions on one compartment, under CellProfiler's names."""
    core, pair = bulk.get_core_measurements(), bulk.get_correlation_measurements()
    found = {}
    for group, function in (("shape", "sizeshape"), ("feret", "feret"), ("zernike", "zernike")):
        values = core[function](labels, None)
        found |= {name: values[key] for key, name in names.templates(group).items()}
    for channel, plane in zip(CHANNELS, image):
        low, high = windows[channel]
        grey = np.rint(1 + 254 * np.clip((plane - low) / (high - low), 0, 1)) / 255
        for group, function, pixels in (
            ("intensity", "intensity", plane.astype(float)),
            ("radial", "radial_distribution", plane.astype(float)),
            ("texture", "texture", grey),
        ):
            values = core[function](labels, pixels)
            for key, name in names.templates(group).items():
                found[name.format(channel=channel)] = values[key]
    values = pair["pearson"](image[0].astype(float), image[1].astype(float), labels)
    found["Correlation_Correlation_DNA_GFP"] = values["Correlation_Pearson"]
    return {name: np.asarray(value, float) for name, value in found.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_column_is_cp_measures(seed):
    image, nuclei, cells = field(seed)
    windows = {"DNA": (20.0, 200.0), "GFP": (10.0, 250.0)}
    found = classical.measure(image, nuclei, cells, CHANNELS, windows)
    assert list(found.columns) == names.columns(CHANNELS)
    assert list(found.index) == list(np.unique(cells[cells > 0])) == list(range(1, 15))
    cytoplasm = np.where(nuclei > 0, 0, cells)
    for compartment, labels in (("Nuclei", nuclei), ("Cells", cells), ("Cytoplasm", cytoplasm)):
        for name, expected in reference(image, labels, windows).items():
            column = found[f"{compartment}_{name}"].to_numpy()
            defined = np.isfinite(column)
            np.testing.assert_allclose(
                column[defined], expected[defined], rtol=2e-5, atol=1e-5, err_msg=name
            )
            if "RadialDistribution" in name or name.endswith("Compactness"):
                # a ring without pixels, a shape without perimeter: ours NaN, there 0
                assert np.all((expected[~defined] == 0) | ~np.isfinite(expected[~defined])), name
            else:
                assert np.array_equal(defined, np.isfinite(expected)), name


def test_values_by_hand():
    image = np.zeros((2, 12, 12), np.uint16)
    cells, nuclei = np.zeros((2, 12, 12), np.int32)
    cells[2:8, 3:9] = 5
    nuclei[4:6, 5:7] = 5
    image[0, 4:6, 5:7] = [[10, 20], [30, 40]]
    image[1] = 7
    row = classical.measure(image, nuclei, cells, CHANNELS).loc[5]
    assert row["Nuclei_AreaShape_Area"] == 4
    assert row["Cells_AreaShape_Area"] == 36
    assert row["Cytoplasm_AreaShape_Area"] == 32
    assert row["Cytoplasm_AreaShape_EulerNumber"] == 0
    assert row["Nuclei_Intensity_IntegratedIntensity_DNA"] == 100
    assert row["Nuclei_Intensity_MeanIntensity_DNA"] == 25
    assert row["Nuclei_Intensity_StdIntensity_DNA"] == pytest.approx(np.sqrt(125))
    assert row["Nuclei_Intensity_MedianIntensity_DNA"] == 25
    assert row["Nuclei_Intensity_LowerQuartileIntensity_DNA"] == 17.5
    assert row["Nuclei_Intensity_MADIntensity_DNA"] == 10
    # centre of mass (.5 · 70 + .5 · 30 …): y 4.7, x 5.6 against 4.5, 5.5
    assert row["Nuclei_Intensity_MassDisplacement_DNA"] == pytest.approx(np.hypot(0.2, 0.1))
    assert row["Cytoplasm_Intensity_MeanIntensity_GFP"] == 7
    assert np.isnan(row["Cells_Correlation_Correlation_DNA_GFP"])  # GFP is constant
    rings = [row[f"Cells_RadialDistribution_FracAtD_GFP_{i}of4"] for i in (1, 2, 3, 4)]
    assert sum(rings) == pytest.approx(1)


def test_undefined_is_nan_never_zero():
    image, nuclei, cells = field(3)
    cells[:] = 0
    nuclei[:] = 0
    cells[10, 10] = nuclei[10, 10] = 1  # one pixel, no cytoplasm
    cells[30:50, 30:50] = 2
    nuclei[35:40, 35:40] = 2
    row = classical.measure(image, nuclei, cells, CHANNELS).loc[1]
    cytoplasm = [name for name in row.index if name.startswith("Cytoplasm_")]
    assert row[cytoplasm].isna().all()
    assert row["Nuclei_AreaShape_Area"] == 1
    assert np.isnan(row["Nuclei_AreaShape_FormFactor"])
    assert np.isnan(row["Nuclei_AreaShape_Compactness"])
    assert np.isnan(row["Nuclei_Texture_Contrast_DNA_3_00_256"])
    assert np.isnan(row["Nuclei_RadialDistribution_RadialCV_DNA_4of4"])
    assert np.isnan(row["Nuclei_Correlation_Correlation_DNA_GFP"])


def test_a_nucleus_without_a_cell_is_no_row_and_moves_no_other():
    image, nuclei, cells = field(6)
    whole = classical.measure(image, nuclei, cells, CHANNELS)
    left = classical.measure(image, nuclei, np.where(cells == 4, 0, cells), CHANNELS)
    assert list(left.index) == [n for n in whole.index if n != 4]
    columns = [c for c in whole if not c.startswith("Cytoplasm")]
    np.testing.assert_allclose(left[columns], whole.loc[left.index, columns], rtol=1e-5, atol=1e-6)


def test_a_cell_that_fills_the_field_has_no_edge():
    image = np.full((2, 9, 9), 4, np.uint16)
    whole = np.ones((9, 9), np.int32)
    row = classical.measure(image, whole, whole, CHANNELS).loc[1]
    assert row["Cells_Intensity_MeanIntensity_DNA"] == 4
    assert np.isnan(row["Cells_Intensity_MeanIntensityEdge_DNA"])


def test_without_cells_the_columns_are_the_same():
    image, nuclei, cells = field()
    full = classical.measure(image, nuclei, cells, CHANNELS)
    empty = classical.measure(image, 0 * nuclei, 0 * cells, CHANNELS)
    assert len(empty) == 0
    assert list(empty.dtypes.items()) == list(full.dtypes.items())
    assert empty.index.dtype == full.index.dtype == np.int32
    assert empty.index.name == "Metadata_Cell"


def test_a_cell_is_measured_alike_whatever_else_is_in_the_field():
    image, nuclei, cells = field(4)
    together = classical.measure(image, nuclei, cells, CHANNELS)
    for number in (2, 9):
        only = [np.where(labels == number, labels, 0) for labels in (nuclei, cells)]
        alone = classical.measure(image, *only, CHANNELS)
        np.testing.assert_allclose(alone.loc[number], together.loc[number], rtol=1e-5, atol=1e-6)


def test_texture_tells_levels_of_a_dim_image_apart_by_its_window():
    image, nuclei, cells = field(5)
    name = "Cells_Texture_Entropy_GFP_3_00_256"
    dim = classical.measure(image, nuclei, cells, CHANNELS)[name]
    window = classical.measure(image, nuclei, cells, CHANNELS, {"DNA": (0, 255), "GFP": (0, 255)})
    assert (dim < 1).all()  # 255 of 65,535: two grey levels are left
    assert (window[name] > 5).all()


def test_what_does_not_belong_together_is_refused():
    image, nuclei, cells = field()
    with pytest.raises(ValueError, match="do not belong together"):
        classical.measure(image, nuclei, cells, ["DNA"])
