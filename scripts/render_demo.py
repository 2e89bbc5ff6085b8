"""Make the demo's shipped artefacts again, and its images to look at.

python scripts/render_demo.py                 # config/demo_*_platemap.csv
python scripts/render_demo.py --images DIR    # the TIFFs of both plates besides, DIR/<plate>/
"""

import argparse
from pathlib import Path

from plateglass import synthetic

CONFIG = Path(__file__).resolve().parents[1] / "config"


def main() -> None:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(description="Make the demo's shipped artefacts again.")
    parser.add_argument("--images", type=Path, help="folder for the TIFFs of both plates")
    arguments = parser.parse_args()
    CONFIG.mkdir(exist_ok=True)
    for name, spec in synthetic.DEMO.items():
        path = CONFIG / f"{name}_platemap.csv"
        path.write_text(synthetic.platemap(spec))
        print(path)
        if arguments.images:
            written = synthetic.render(name, arguments.images / name)
            print(f"{arguments.images / name}: {len(written)} files written")


if __name__ == "__main__":
    main()
