"""What is left out, what is used but flagged, and why."""

from typing import Any

import pandas as pd

COLUMNS = [{"name": name, "number": False} for name in ("Plate", "Well", "Site", "Reason")]


def build(sites: pd.DataFrame) -> dict[str, Any]:
    """Tables of the sites in quarantine and of those flagged, for the template."""
    left_out = _reasons(sites, "Metadata_Quarantine")
    used = sites[sites["Metadata_Quarantine"].isna()] if left_out else sites
    flagged = _reasons(used, "Metadata_Flag")
    good = "Nothing is in quarantine: every site of every well could be used."
    return {
        "table": _table("Quarantine", left_out),
        "flagged": _table("Flagged", flagged),
        "absent": [] if left_out else [good],
        "count": len(left_out),
    }


def _table(title: str, rows: list[list[str]]) -> dict[str, Any] | None:
    return {"title": title, "columns": COLUMNS, "rows": rows} if rows else None


def _reasons(sites: pd.DataFrame, column: str) -> list[list[str]]:
    if column not in sites:
        return []
    rows = []
    for row in sites[sites[column].fillna("") != ""].to_dict("records"):
        site = row["Metadata_Site"]
        where = "all" if pd.isna(site) else str(int(site))
        rows.append([row["Metadata_Plate"], row["Metadata_Well"], where, row[column]])
    return rows
