"""The mapping table against the names that CellProfiler itself writes."""

import re

import pytest

from plateglass.errors import UserError
from plateglass.measure import names

# How CellProfiler 4 names its per-object measurements. Read off the headers of Cells.csv,
# Nuclei.csv and Cytoplasm.csv of plate BR00121431 (JUMP, 2021_04_20_Target2), which pycytominer
# carries among its test data (tests/test_data/collate, BSD-3-Clause); written down here by kind.
SHAPE = """
    Area BoundingBoxArea BoundingBoxMaximum_X BoundingBoxMaximum_Y BoundingBoxMinimum_X
    BoundingBoxMinimum_Y Center_X Center_Y Compactness Eccentricity EquivalentDiameter EulerNumber
    Extent FormFactor MajorAxisLength MaxFeretDiameter MaximumRadius MeanRadius MedianRadius
    MinFeretDiameter MinorAxisLength Orientation Perimeter Solidity
"""
INTENSITY = """
    IntegratedIntensityEdge IntegratedIntensity LowerQuartileIntensity MADIntensity MassDisplacement
    MaxIntensityEdge MaxIntensity MeanIntensityEdge MeanIntensity MedianIntensity MinIntensityEdge
    MinIntensity StdIntensityEdge StdIntensity UpperQuartileIntensity
"""
TEXTURE = """
    AngularSecondMoment Contrast Correlation DifferenceEntropy DifferenceVariance Entropy InfoMeas1
    InfoMeas2 InverseDifferenceMoment SumAverage SumEntropy SumVariance Variance
"""


def header(channels: list[str]) -> set[str]:
    """What stands in such a header for these channels, as far as our groups go."""
    found = {f"AreaShape_{name}" for name in SHAPE.split()}
    found |= {f"AreaShape_Zernike_{n}_{m}" for n in range(10) for m in range(n % 2, n + 1, 2)}
    found |= {f"Intensity_{name}_{c}" for name in INTENSITY.split() for c in channels}
    found |= {
        f"RadialDistribution_{name}_{c}_{ring}of4"
        for name in ("FracAtD", "MeanFrac", "RadialCV")
        for c in channels
        for ring in (1, 2, 3, 4)
    }
    found |= {
        f"Texture_{name}_{c}_{scale}_{angle:02d}_256"
        for name in TEXTURE.split()
        for c in channels
        for scale in (3, 5, 10)
        for angle in range(4)
    }
    found |= {f"Correlation_Correlation_{a}_{b}" for a, b in names.pairs(channels)}
    return found


def test_every_column_stands_in_a_cellprofiler_header():
    channels = ["DNA", "AGP", "Mito"]
    known = header(channels)
    for column in names.columns(channels):
        compartment, name = column.split("_", 1)
        assert compartment in ("Nuclei", "Cells", "Cytoplasm")
        assert name in known, name


def test_columns_of_two_channels():
    columns = names.columns(["DNA", "GFP"])
    assert len(columns) == 621 == len(set(columns))
    assert columns[0] == "Nuclei_AreaShape_Area"
    for name in (
        "Cells_Intensity_MeanIntensity_GFP",
        "Cytoplasm_RadialDistribution_FracAtD_DNA_1of4",
        "Nuclei_Texture_InfoMeas1_GFP_3_02_256",
        "Cells_Correlation_Correlation_DNA_GFP",
        "Cells_AreaShape_Zernike_9_7",
    ):
        assert name in columns


def test_pairs_are_alphabetical_and_so_independent_of_the_order_of_channels():
    assert names.pairs(["GFP", "DNA", "ER"]) == [("DNA", "ER"), ("DNA", "GFP"), ("ER", "GFP")]


def test_what_is_left_out_says_why():
    reasons = names.left_out()
    assert set(reasons) == {
        *(f"Center_{a}" for a in "XY"),
        *(f"BoundingBox{m}_{a}" for m in ("Minimum", "Maximum") for a in "XY"),
        *(f"Location_{m}Intensity_{a}" for m in ("CenterMass", "Max") for a in "XYZ"),
        "ConvexArea",
        "Correlation_Slope",
    }
    assert all(reasons.values())


def test_the_table_has_no_name_twice():
    rows = names.table()
    assert len({row.measured for row in rows}) == len(rows)
    used = [row.cellprofiler for row in rows if row.cellprofiler]
    assert len(set(used)) == len(used)
    assert all(bool(row.cellprofiler) != bool(row.left_out) for row in rows)


def test_channels_whose_pairs_would_share_a_name_are_refused():
    with pytest.raises(UserError, match=re.escape("'Cells_Correlation_Correlation_a_b_c'")):
        names.columns(["a", "b_c", "a_b", "c"])


def test_a_platemap_column_never_takes_a_name_of_ours():
    named = {c: names.platemap_column(c) for c in ("role", " dose (nM)", "Well", "Site_2", "Sites")}
    assert named == {
        "role": "Metadata_role",
        " dose (nM)": "Metadata_dose_nM",
        "Well": "Metadata_Platemap_Well",
        "Site_2": "Metadata_Platemap_Site_2",
        "Sites": "Metadata_Sites",
    }


def test_columns_in_the_order_of_the_tables():
    columns = ["Cells_Embedding_001", "Cytoplasm_a", "Cells_a", "Nuclei_a", "Cells_Embedding_000"]
    columns += ["Metadata_PCIM_x", "Metadata_Class_Erased", "Metadata_Box_Top", "Metadata_Cell"]
    columns += ["Metadata_Margin", "Metadata_Class", "Metadata_role", "Metadata_Plate", "other"]
    assert names.ordered(columns, ["Metadata_role"]) == [
        *("Metadata_Plate", "Metadata_Cell", "Metadata_role", "Metadata_Class"),
        *("Metadata_Class_Erased", "Metadata_Margin", "Metadata_PCIM_x", "Nuclei_a", "Cells_a"),
        *("Cytoplasm_a", "Cells_Embedding_000", "Cells_Embedding_001"),
    ]
