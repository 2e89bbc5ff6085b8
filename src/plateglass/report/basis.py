"""What a plate's values are in units of: its negative controls, or other wells for want of them."""

from dataclasses import dataclass

from plateglass.project import UNITS_WELLS
from plateglass.report.subject import Subject
from plateglass.report.wells import read

NAMED = 3  # plates that a sentence names; of more it tells their number


@dataclass(frozen=True)
class Basis:
    """How the values of a report's plates came to their units.

    plates: all of them; hashed: those whose plate units (plateglass.units) are made from wells chosen
    by a hash; whole: those whose profiles are normalised to all wells; known: whether
    wells_normalized.parquet told of any plate to what; negative: the label of negative controls.
    """

    plates: tuple[str, ...]
    hashed: tuple[str, ...]
    whole: tuple[str, ...]
    known: bool
    negative: str

    @property
    def intensities(self) -> str:
        """The wells whose 99th percentile is the scale of the plate units, as a phrase."""
        controls = "the plate's negative-control wells"
        if not self.hashed:
            return controls
        chosen = f"up to {UNITS_WELLS} of its wells chosen by a hash of their names"
        why = f"no readable well is labelled “{self.negative}”"
        if len(self.hashed) == len(self.plates):
            return f"the plate, taken from {chosen} ({why})"
        return f"{controls} or, on {named(self.hashed)}, of {chosen} (there {why})"

    @property
    def profiles(self) -> str:
        """What the well profiles are normalised to, as a phrase."""
        if not self.known:
            return "per plate"
        if not self.whole:
            return "per plate to the negative controls"
        rest = "all wells with cells, for want of two negative controls with cells"
        if len(self.whole) == len(self.plates):
            return f"per plate to {rest}"
        return f"per plate to the negative controls or, on {named(self.whole)}, to {rest}"


def of(subject: Subject) -> Basis:
    """From the labels, what ingest could read, and the column Metadata_Normalized_To."""
    hashed, said = [], {}
    for plate in subject.plates:
        if not _controls(subject, plate):
            hashed.append(plate)
        table = read(
            subject.job.results / plate / "wells_normalized.parquet", "Metadata_Normalized_To"
        )
        if table is not None and "Metadata_Normalized_To" in table and len(table):
            said[plate] = str(table["Metadata_Normalized_To"].iloc[0])
    whole = tuple(plate for plate, to in said.items() if to.startswith("all "))
    return Basis(subject.plates, tuple(hashed), whole, bool(said), subject.negative)


def _controls(subject: Subject, plate: str) -> bool:
    """Whether a negative control of the plate has a site that ingest could read."""
    wells, sites = subject.wells, subject.sites
    own = wells[(wells["plate"] == plate) & (wells["label"] == subject.negative)]
    read_ = sites[sites["Metadata_Plate"] == plate]
    if "Metadata_Quarantine" in read_:
        read_ = read_[~read_["Metadata_Quarantine"].fillna("").str.startswith("ingest")]
    return bool(own["well"].isin(read_["Metadata_Well"].astype(str)).any())


def named(plates: tuple[str, ...]) -> str:
    """Plates by name where they are few, else their number."""
    return f"{len(plates)} plates" if len(plates) > NAMED else ", ".join(plates)
