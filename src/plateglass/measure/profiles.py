"""Profiles of wells: medians of cells, in units of the controls, of a chosen set of features.

By pycytominer, which finds the features by their names. Frames in, frames out.
"""

import warnings

import numpy as np
import pandas as pd
from pycytominer import aggregate, feature_select, normalize

from plateglass.measure.names import PLACE, features_of

CONSTANT = 1e-6  # of its size: what varies less among the controls is float32's rounding


def profile(cells: pd.DataFrame) -> pd.DataFrame:
    """One row for a well: medians of its features, means of its audit columns, counts.

    Empty (no row) for a well without cells: there is nothing to take a median of.
    """
    if cells.empty:
        return pd.DataFrame()
    by = ["Metadata_Plate", "Metadata_Well"]
    features = features_of(list(cells.columns))
    row = cells[by].head(1).reset_index(drop=True)
    if features:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # medians of features that no cell has
            row = aggregate(cells, strata=by, features="infer", operation="median")
    facts: dict[str, object] = {"Metadata_Count_Cells": len(cells)}
    if "Metadata_Class" in cells:
        shares = cells["Metadata_Class"].value_counts(normalize=True)
        facts |= {f"Metadata_Share_{name}": share for name, share in sorted(shares.items())}
    for column in cells.columns:
        audit = column.startswith("Metadata_") and column not in {*PLACE} - {"Metadata_Edge"}
        if column == "Metadata_Fold":
            facts[column] = cells[column].dropna().iloc[0] if cells[column].notna().any() else None
        elif audit and pd.api.types.is_numeric_dtype(cells[column]):
            facts[column] = cells[column].mean()
    if "Metadata_GradCAMO" in cells:
        facts["Metadata_GradCAMO_Null"] = cells["Metadata_GradCAMO"].isna().mean()
    return pd.concat([row, pd.DataFrame([facts])], axis=1)


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
