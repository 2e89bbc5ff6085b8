"""The foot of a report: what made it, and nothing that changes from run to run."""

from typing import Any

import yaml

from plateglass.project import Project


def foot(project: Project) -> dict[str, Any]:
    """Version, stage versions, model key and the settings, as lines and as YAML."""
    made = project.provenance("report")
    stages = ", ".join(f"{name} {version}" for name, version in made["stages"].items())
    return {
        "lines": [
            ("plateglass", made["plateglass"]),
            ("stage versions", stages),
            ("model", made["model"] or "none"),
        ],
        "settings": yaml.safe_dump(made["config"], sort_keys=False, allow_unicode=True, width=100),
    }
