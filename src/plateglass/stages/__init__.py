"""The chain: each stage's name, the version of its results, and what it follows.

Versions stand here rather than in the stages' modules so that planning imports no stage: they are
raised by hand when a stage's results change.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage.

    ``wells``: the work is done and remembered by the well; else for a whole plate or screen.
    ``in_workers``: what its workers need; the process that they are forked from imports it.
    """

    name: str
    version: int
    after: str | None
    wells: bool = True
    in_workers: tuple[str, ...] = ()


STAGES = {
    stage.name: stage
    for stage in (
        Stage("ingest", 2, None, in_workers=("plateglass.stages.ingest",)),
        Stage(
            "segment",
            3,
            "ingest",
            in_workers=("plateglass.stages.segment", "plateglass.models.nuclei_small"),
        ),
        Stage("train", 1, "segment", wells=False),
        Stage(
            "features",
            1,
            "segment",
            in_workers=("plateglass.prepare", "plateglass.measure.classical"),
        ),
        Stage("attribute", 1, "features", in_workers=("plateglass.prepare",)),
        Stage("aggregate", 2, "attribute", wells=False),
        Stage("report", 4, "aggregate", wells=False),
    )
}
SCREEN = "screen"  # stands for the plate in what concerns all plates


def earlier(stage: str) -> list[str]:
    """The names of the stages in front of one."""
    return list(STAGES)[: list(STAGES).index(stage)]
