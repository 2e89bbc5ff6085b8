"""Surprises: wells of a plate came out otherwise than a plan could know.

Each leaves a file of a name of its own, which all later keys of its plate hold (`Project.basis`). So jobs
that were planned before are refused, those that are tried again too, and the next plan has all that is
made of the plate looked at. One for networks alone is held by the keys of train and what comes after.
"""

import os
import time
from collections import defaultdict
from pathlib import Path

FOR_NETWORKS = ".networks"


def note(state: Path, plate: str, for_networks: bool = False) -> None:
    """Remember one. To be called before what surprised is noted itself: a kill in between costs a look.

    ``for_networks``: what is made of the plate's own wells was planned, networks' key does not know.
    """
    folder = state / "surprises"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{plate}.{time.time_ns()}{FOR_NETWORKS if for_networks else ''}").touch()


def noted(state: Path) -> dict[str, list[str]]:
    """Plate → its surprises, for those that had any."""
    found = defaultdict(list)
    try:
        names = sorted(os.listdir(state / "surprises"))
    except FileNotFoundError:
        names = []
    for name in names:
        plate, _, key = name.partition(".")
        found[plate].append(key)
    return dict(found)
