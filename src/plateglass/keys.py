"""The key by which a plan asks for a job: what it knew, so that the job can hold it against what it finds.

A job that finds otherwise ends, also when it is tried again by the same key; the next plan knows more.
"""

from dataclasses import dataclass

DIGITS = 8
ANY = "0" * DIGITS  # of what the plan has nothing to say


def short(digest: str | None) -> str:
    """What a key holds of a digest."""
    return ANY if digest is None else digest[:DIGITS]


@dataclass(frozen=True)
class Key:
    """Digests, cut short, of what the plan knew of a job; `ANY` where the job is free.

    ``basis``: settings and platemaps. ``listed``: what lies in the plate's folder (ingest). ``output``:
    what must come out, where that is to be what stood before, so that what follows was not asked for.
    ``model``: the networks that stay as they are, so that training wells must come out as these learnt
    from them. ``count`` makes a new name of each.
    """

    basis: str
    listed: str = ANY
    output: str = ANY
    model: str = ANY
    count: int = 0

    def __str__(self) -> str:
        return f"{self.basis}{self.listed}{self.output}{self.model}.{self.count}"

    @classmethod
    def read(cls, text: str) -> "Key":
        """The key of a command line or a file's name; one that no plan wrote has no basis."""
        digests, _, count = text.partition(".")
        fields = (digests[start : start + DIGITS] for start in range(0, 4 * DIGITS, DIGITS))
        return cls(*fields, int(count) if count.isdigit() else 0)
