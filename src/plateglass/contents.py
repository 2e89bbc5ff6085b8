"""Content digests of what stands: what each result was made from, and what came out.

A stage is done where its marker's inputs are what they would be now. They hold what came out of the
stages in front, not the files that these read: what comes out as before changes nothing after it, and
what comes out otherwise, whatever the reason, does.
"""

from functools import cached_property
from typing import Any

from plateglass.ledger import WHOLE, fingerprint
from plateglass.markers import Marker, known
from plateglass.project import Project
from plateglass.stages import SCREEN, STAGES


class Contents:
    """What stands when it is first asked for.

    ``by_markers``: as a plan knows it, which reads a plate's ledger only where a marker is gone or networks
    may learn from what changed. Jobs go by the ledgers, which a share shows as they are, while a folder's
    listing may be of a minute ago on another node.
    """

    def __init__(self, project: Project, by_markers: bool = False):
        self.project, self._by_markers = project, by_markers
        self._outputs: dict[tuple[str, str], str | None] = {}

    @cached_property
    def markers(self) -> dict[tuple[str, str], Marker]:
        return known(self.project.state)

    def output(self, stage: str, plate: str) -> str | None:
        """Digest of what came out."""
        if (plate, stage) not in self._outputs:
            self._outputs[plate, stage] = self._output(stage, plate)
        return self._outputs[plate, stage]

    def _output(self, stage: str, plate: str) -> str | None:
        def told() -> str | None:
            marker = self.markers.get((plate, stage))
            return marker and marker.output

        if self._by_markers and (output := told()):
            return output
        output = self.project.ledger(stage, plate).output()
        # a whole stage's line may be lost to a flipped bit; of well stages jobs find out themselves
        return output if STAGES[stage].wells else output or told()

    def inputs(self, stage: str, plate: str, listed: str | None = None) -> str:
        """Digest of all that a stage's result would be made from now.

        ``listed`` stands for what lies in the plate's folder; needed for ingest. Else of what ledgers
        hold, not of listings: an image that was touched changes nothing here.
        """
        project, output = self.project, self.output
        if stage == "train":
            return self.train_key()
        if stage in ("aggregate", "report"):
            # settings of the stages in front are in what came out of these
            rows = None if plate == SCREEN else project.platemap_key(plate)
            return fingerprint(stage, project.own(stage), rows, self._shown(stage, plate))
        before: Any = listed
        if stage == "segment":
            before = output("ingest", plate)
        elif stage == "features":
            before = self._cells(plate), self._model()
        elif stage == "attribute":
            before = output("features", plate)
        return fingerprint(stage, project.basis(stage, plate), before)

    def _shown(self, stage: str, plate: str) -> list[Any]:
        """What a stage of a whole plate or of the screen puts together."""
        project, output = self.project, self.output
        if stage == "aggregate" and plate != SCREEN:
            return [output(name, plate) for name in project.well_stages()]
        made = [(name, output("aggregate", name)) for name in project.names if plate == SCREEN]
        return made if stage == "aggregate" else [made, output("aggregate", plate), self._model()]

    def train_key(self) -> str:
        """Content key of the model that the training wells as they are would give."""
        plates = self.project.training_plates()
        return self.key_of_taught({name: self.taught(name) for name in plates})

    def key_of_taught(self, taught: dict[str, dict[str, str]]) -> str:
        """Content key of the model that this gives (plate → `taught`)."""
        keys = [(name, taught[name]["ingest"], taught[name]["segment"]) for name in sorted(taught)]
        return fingerprint("train", keys, self.project.own("train"))

    def taught(self, plate: str, anew: bool = False) -> dict[str, str]:
        """What networks learn from a plate, by stage, as `Project.taught`; and all that it hangs on.

        Their ledger remembers it of plates that stand as they did; ``anew``: whatever it says.
        """
        project, labels = self.project, self.project.labels(plate)
        roles = sorted(project.classed(plate).items()), project.negatives(plate, labels)
        stands, learnt = fingerprint(self._cells(plate), roles), self.learnt.get(plate, {})
        if learnt.get("stands") == stands and {"ingest", "segment"} <= learnt.keys() and not anew:
            return learnt
        return {of: project.taught(of, plate) for of in ("ingest", "segment")} | {"stands": stands}

    @cached_property
    def learnt(self) -> dict[str, dict[str, str]]:
        """Plate → what the networks that stand learnt from it, as `taught`."""
        return self.project.ledger("train", SCREEN).get(WHOLE, {}).get("taught", {})

    def _cells(self, plate: str) -> list[Any]:
        """A plate's cells and its units."""
        cells = [self.output(stage, plate) for stage in ("ingest", "segment")]
        return [plate, *cells, self.project.frozen_units(plate)]

    def _model(self) -> tuple[bool, str | None]:
        """The networks that are applied, and whether they are the screen's own."""
        if self.project.trains:
            return True, self.output("train", SCREEN)
        return False, self.project.model_key() if self.project.has_model else None
