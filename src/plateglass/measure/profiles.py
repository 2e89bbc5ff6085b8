"""Profiles of wells: medians of cells, in units of the controls, of a chosen set of features.

By pycytominer, which finds the features by their names. Frames in, frames out.
"""

import warnings

import numpy as np
import pandas as pd
from pycytominer import aggregate, feature_select, normalize

from plateglass.measure.names import PLACE, features_of

CONSTANT = 1e-6  # of its size: what varies less among the controls is float32's rounding


def of_wells(cells: pd.DataFrame) -> pd.DataFrame:
    """One row a well, index ``Metadata_Well``: features' medians, audit columns' means, counts.

    Only wells that have cells get one: there is nothing to take a median of.
    """
    well = cells["Metadata_Well"]
    by = cells.groupby(well)
    facts = [by.size().rename("Metadata_Count_Cells")]
    if "Metadata_Class" in cells:
        shares = pd.crosstab(well, cells["Metadata_Class"], normalize="index")
        facts.append(shares.add_prefix("Metadata_Share_"))
    if "Metadata_Fold" in cells:
        facts.append(by["Metadata_Fold"].first())
    if "Metadata_GradCAMO" in cells:
        empty = cells["Metadata_GradCAMO"].isna().groupby(well).mean()
        facts.append(empty.rename("Metadata_GradCAMO_Null"))
    left_out = {*PLACE, "Metadata_Fold"} - {"Metadata_Edge"}
    audit = [c for c in cells.columns if c.startswith("Metadata_") and c not in left_out]
    audit = [c for c in audit if pd.api.types.is_numeric_dtype(cells[c])]
    facts.append(by[audit].mean())
    if features_of(list(cells.columns)) and len(cells):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # medians of features that no cell has
            medians = aggregate(cells, strata=["Metadata_Well"], features="infer")
        facts.append(medians.set_index("Metadata_Well"))
    return pd.concat(facts, axis=1)


def normalized_wells(wells: pd.DataFrame, negative: list[str], method: str) -> pd.DataFrame:
    """Wells in units of their plate's negative controls; ``Metadata_Normalized_To`` says of what.

    With fewer than two negative controls that have cells, to all wells of the plate. A feature
    that is constant there has no unit: null (pycytominer would divide by 1e-18).
    """
    features = features_of(list(wells.columns))
    counted = wells["Metadata_Count_Cells"].fillna(0) > 0
    controls = counted & wells["Metadata_Well"].isin(negative)
    reference = controls if controls.sum() >= 2 else counted
    to = f"{controls.sum()} negative-control wells"
    if controls.sum() < 2:
        why = f"has {controls.sum()} negative-control well(s) with cells"
        to = f"all {counted.sum()} wells with cells: the plate {why}"
    if not features or not counted.any():
        return _with_reference(wells, wells[features], "nothing: no cells, or no features")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # empty columns, zero spreads: null, as said below
        out = normalize(
            pd.concat([wells, reference.rename("Metadata_Reference")], axis=1),
            features="infer",
            samples="Metadata_Reference",
            method=method,
            mad_robustize_epsilon=0,
        )
        values = wells.loc[reference, features]
        spread = values.max() - values.min()
    unitless = ~(spread > CONSTANT * values.abs().max())
    values = out[features].replace([np.inf, -np.inf], np.nan).mask(unitless, axis="columns")
    return _with_reference(wells, values, to)


def _with_reference(wells: pd.DataFrame, values: pd.DataFrame, to: str) -> pd.DataFrame:
    """The wells with other values of their features, and what these are in units of."""
    place = wells.columns.get_loc("Metadata_Count_Cells") + 1
    before, after = wells.columns[:place], wells.columns[place:]
    facts = wells[[c for c in wells.columns if c not in values.columns]]
    said = pd.Series(to, wells.index, name="Metadata_Normalized_To")
    table = pd.concat([facts, said, values], axis=1)
    return table[[*before, "Metadata_Normalized_To", *after]]


def selected(profiles: pd.DataFrame, operations: list[str]) -> pd.DataFrame:
    """The same wells with the features that pycytominer's operations leave.

    Wells without cells have no say: their nulls would else cost every feature.
    """
    counted = profiles["Metadata_Count_Cells"].fillna(0) > 0
    if not (counted.any() and operations and features_of(list(profiles.columns))):
        return profiles
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        left = feature_select(profiles[counted], features="infer", operation=operations)
    return profiles[list(left.columns)]
