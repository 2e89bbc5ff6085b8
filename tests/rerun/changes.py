"""What users do to a finished screen, and what must run: the rows of the rerun rule.

A change is a function of the finished screen that edits its files and returns the (plate, stage,
well) that must run. ``plain``: cheap enough for every run of the tests. ``scratch``: the results must
equal those of the same files run anew; else they must be what they were.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import plateglass
from plateglass import synthetic
from plateglass.models import nuclei
from plateglass.stages import SCREEN, STAGES
from screen import WELL_STAGES

CHANNELS = ("DNA", "Actin", "Marker")


@dataclass(frozen=True)
class Change:
    """A row: what was done, and what it makes run."""

    do: Callable
    plain: bool
    scratch: bool


CHANGES: dict[str, Change] = {}


def row(plain: bool = False, scratch: bool = True):
    def known(function):
        CHANGES[function.__name__] = Change(function, plain, scratch)
        return function

    return known


# ---------------------------------------------------------------------- what must run
def ends(*plates):
    """Tables and reports of these plates, and the screen's."""
    return [(p, s, "") for p in (*plates, SCREEN) for s in ("aggregate", "report")]


def wells(screen, plates, stages, only=None):
    return [(p, s, w) for p in plates for s in stages for w in only or screen.specs[p].wells]


def anew(screen):
    """What follows from another model."""
    both = ("P1", "P2")
    return [(SCREEN, "train", ""), *wells(screen, both, ("features", "attribute")), *ends(*both)]


# ---------------------------------------------------------------------- what users do
def relabel(screen, plate, well, label):
    path = screen.folder / "raw" / plate / "platemap.csv"
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{well},"))
    fields = lines[at].split(",")
    fields[1] = label
    lines[at] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")


def remove_images(screen, plate, well):
    """Returns what was there, for `put_back`."""
    kept = {}
    for channel in CHANNELS:
        path = screen.raw(plate, well, channel)
        kept[path] = path.read_bytes(), path.stat().st_mtime_ns
        path.unlink()
    return kept


def put_back(kept):
    for path, (content, time) in kept.items():
        path.write_bytes(content)
        os.utime(path, ns=(time, time))


def set_section(screen, name, **values):
    screen.settings[name] = {**screen.settings.get(name, {}), **values}
    screen.write()


# ---------------------------------------------------------------------- images and wells
@row()
def a_treatment_image_replaced_by_an_older_one_of_the_same_size(screen):
    sizes = screen.raw("P2", "B01").stat()
    screen.replace_image("P2", "B01")
    now = screen.raw("P2", "B01").stat()
    assert now.st_size == sizes.st_size and now.st_mtime_ns < sizes.st_mtime_ns
    return wells(screen, ["P2"], WELL_STAGES, ["B01"]) + ends("P2")


@row(plain=True, scratch=False)
def an_image_touched(screen):
    os.utime(screen.raw("P2", "A01"))
    return [("P2", "ingest", "A01")]


@row(plain=True, scratch=False)
def a_training_image_touched(screen):
    os.utime(screen.raw("P1", "A02"))
    return [("P1", "ingest", "A02")]


@row()
def a_well_added(screen):
    spec = replace(screen.specs["P2"], wells={"B03": screen.specs["P2"].wells["B01"]})
    extra = screen.folder / "extra"
    synthetic.render_plate(spec, extra)
    for file in extra.glob("*.tif"):
        file.rename(screen.folder / "raw/P2" / file.name)
    return wells(screen, ["P2"], WELL_STAGES, ["B03"]) + ends("P2")


@row()
def a_well_removed(screen):
    remove_images(screen, "P2", "B02")
    return ends("P2")


@row()
def a_well_renamed(screen):
    for channel in CHANNELS:
        screen.raw("P2", "B02", channel).rename(screen.raw("P2", "B04", channel))
    return wells(screen, ["P2"], WELL_STAGES, ["B04"]) + ends("P2")


@row()
def a_training_wells_image_replaced(screen):
    screen.replace_image("P1", "A02")
    return wells(screen, ["P1"], ("ingest", "segment"), ["A02"]) + anew(screen)


@row()
def a_units_wells_image_replaced_on_a_plate_that_does_not_train(screen):
    screen.replace_image("P2", "A02")
    return [
        *wells(screen, ["P2"], ("ingest", "segment"), ["A02"]),
        *wells(screen, ["P2"], ("features", "attribute")),
        *ends("P2"),
    ]


@row()
def two_changes_at_once_on_different_plates(screen):
    screen.replace_image("P1", "B01")
    remove_images(screen, "P2", "B02")
    return wells(screen, ["P1"], WELL_STAGES, ["B01"]) + ends("P1", "P2")


# ---------------------------------------------------------------------- sheet and platemaps
@row()
def a_training_label_changed(screen):
    relabel(screen, "P1", "A06", "treatment")  # leaves two wells of its class
    return anew(screen)


@row()
def a_negative_control_mark_changed_on_a_plate_that_trains(screen):
    relabel(screen, "P1", "A03", "treatment")
    return anew(screen)


@row()
def a_negative_control_mark_changed_on_a_plate_that_does_not_train(screen):
    relabel(screen, "P2", "A05", "negative_control")
    return wells(screen, ["P2"], ("features", "attribute")) + ends("P2")


@row()
def a_label_outside_the_classes_changed(screen):
    relabel(screen, "P2", "B01", "reference")
    return ends("P2")


@row()
def an_evaluation_well_that_is_none_any_more(screen):
    relabel(screen, "P2", "A05", "treatment")  # no control of its own is measured of it now
    return wells(screen, ["P2"], ("features", "attribute"), ["A05"]) + ends("P2")


@row()
def an_evaluation_well_from_now_on(screen):
    relabel(screen, "P2", "B01", "positive_control")
    return wells(screen, ["P2"], ("features", "attribute"), ["B01"]) + ends("P2")


@row()
def a_dose_changed_in_the_platemap(screen):
    path = screen.folder / "raw/P2/platemap.csv"
    path.write_text(path.read_text().replace("translocin,4", "translocin,9"))
    return ends("P2")


@row(plain=True)
def a_platemap_names_a_well_that_has_no_image(screen):
    path = screen.folder / "raw/P2/platemap.csv"
    last = path.read_text().splitlines()[-1].split(",")
    path.write_text(path.read_text() + ",".join(["H12", *last[1:]]) + "\n")
    assert [n for n in screen.plan().notes if n.startswith("plate P2")] == [
        "plate P2: the platemap names 1 well(s) without images: H12"
    ]
    return ends("P2")


@row()
def the_order_of_a_platemaps_columns(screen):
    path = screen.folder / "raw/P2/platemap.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join([x[0], *reversed(x[1:])]) for x in lines) + "\n")
    return ends("P2")


@row(plain=True, scratch=False)
def a_platemaps_rows_in_another_order_and_spelling(screen):
    path = screen.folder / "raw/P1/platemap.csv"
    header, *lines = path.read_text().splitlines()
    lines = [" " + line.replace("A0", "a").replace(",", " , ") for line in reversed(lines)]
    path.write_bytes("\r\n".join(["\ufeff" + header, "", *lines]).encode())
    return []


@row()
def a_plate_without_negative_controls(screen):
    for well in ("A01", "A02", "A03"):
        relabel(screen, "P2", well, "untreated")
    return wells(screen, ["P2"], ("features", "attribute")) + ends("P2")


@row()
def a_plate_added_to_the_sheet(screen):
    screen.specs["P3"] = replace(screen.specs["P2"], name="P3", seed=13)
    synthetic.render_plate(screen.specs["P3"], screen.folder / "raw/P3")
    screen.sheet["P3"] = {"path": "raw/P3", "train": "no"}
    screen.write()
    return wells(screen, ["P3"], WELL_STAGES) + ends("P3")


@row()
def a_plate_renamed_in_the_sheet(screen):
    """Another plate, to all that is made of its name; what lay under the old one is deleted by hand."""
    shutil.rmtree(screen.results / "P2")
    screen.specs["P9"], screen.sheet["P9"] = screen.specs.pop("P2"), screen.sheet.pop("P2")
    screen.write()
    return wells(screen, ["P9"], WELL_STAGES) + ends("P9")


@row()
def a_plate_that_trains_from_now_on(screen):
    screen.sheet["P2"]["train"] = "yes"
    screen.write()
    return anew(screen)


@row(plain=True, scratch=False)
def the_sheets_order_of_plates(screen):
    screen.sheet = dict(reversed(screen.sheet.items()))
    screen.write()
    return []


# ---------------------------------------------------------------------- settings
@row(plain=True, scratch=False)
def settings_in_another_order_and_defaults_written_out(screen):
    """And one left out that stood there: the last class is the positive one."""
    colours = screen.project().config.colours
    channels = {name: {"match": name, "color": colour} for name, colour in colours.items()}
    train = {name: value for name, value in screen.settings["train"].items() if name != "positive"}
    screen.settings = dict(reversed(screen.settings.items())) | {
        "features": {"classical": True},
        "channels": channels,
        "train": train,
    }
    screen.write()
    return []


@row(plain=True, scratch=False)
def comments_and_blank_lines_in_the_settings(screen):
    path = screen.folder / "config.yaml"
    lines = [f"{line}  # as it was\n\n" for line in path.read_text().splitlines()]
    path.write_text("# of the second run\n" + "".join(lines))
    return []


@row(plain=True, scratch=False)
def settings_of_the_run(screen):
    dask = {"scheduler": "tcp://nowhere:8786"}
    set_section(screen, "run", batch=8, workers=3, device="cpu", strict=True, dask=dask)
    return []


@row(plain=True, scratch=False)
def a_model_of_nuclei_by_its_path(screen):
    shutil.copy(nuclei.check("nuclei-small"), screen.folder / "the_same.safetensors")
    set_section(screen, "segment", nuclei={"channel": "DNA", "model": "./the_same.safetensors"})
    return []


@row(plain=True, scratch=False)
def a_new_version_of_the_package(screen):
    old = plateglass.__version__
    screen.undo = lambda: setattr(plateglass, "__version__", old)
    plateglass.__version__ = "99.0"
    return []


@row()
def a_channels_colour(screen):
    """Viewers and reports paint by it: written by ingest, which reads no image for it."""
    set_section(screen, "channels", Actin={"match": "Actin", "color": "12AB34"})
    return [(p, "report", "") for p in ("P1", "P2", SCREEN)]


@row()
def another_label_for_negative_controls(screen):
    set_section(screen, "platemap", negative="positive_control")  # all units change
    return anew(screen)


@row(plain=True)
def a_parameter_of_the_report(screen):
    set_section(screen, "report", gallery=3)
    return [(p, "report", "") for p in ("P1", "P2", SCREEN)]


@row()
def a_parameter_of_ingest(screen):
    set_section(screen, "ingest", pixel_size_um=0.7)
    return wells(screen, ["P1", "P2"], ["ingest", "segment"]) + anew(screen)


@row()
def which_files_are_a_channels(screen):
    set_section(screen, "channels", Actin={"match": "Marker"}, Marker={"match": "Actin"})
    return wells(screen, ["P1", "P2"], ["ingest", "segment"]) + anew(screen)


@row()
def a_parameter_of_segment(screen):
    set_section(screen, "segment", cells={"channel": "Actin", "reach_um": 12})
    both = ["P1", "P2"]
    return wells(screen, both, ["segment"]) + anew(screen)


@row()
def a_parameter_of_train(screen):
    set_section(screen, "train", epochs=1)
    return anew(screen)


@row()
def a_parameter_of_features(screen):
    set_section(screen, "features", reliance_draws=4)
    both = ["P1", "P2"]
    return wells(screen, both, ["features", "attribute"]) + ends(*both)


@row()
def a_parameter_of_attribute(screen):
    set_section(screen, "attribute", cells_per_well=1)
    return wells(screen, ["P1", "P2"], ["attribute"]) + ends("P1", "P2")


@row()
def a_parameter_of_aggregate(screen):
    set_section(screen, "aggregate", normalize="standardize")
    return ends("P1", "P2")


def version_raised(stage):
    def raised(screen):
        old = STAGES[stage]
        screen.undo = lambda: STAGES.__setitem__(stage, old)
        STAGES[stage] = replace(old, version=old.version + 1)
        both = ["P1", "P2"]
        at = [*STAGES].index(stage)
        after = [*STAGES][at:]
        run = wells(screen, both, [s for s in after if s in WELL_STAGES])
        run += [(SCREEN, "train", "")] * (at <= 2)
        whole = [s for s in ("aggregate", "report") if s in after]
        return run + [(p, s, "") for p in (*both, SCREEN) for s in whole]

    raised.__name__ = f"the_version_of_{stage}_raised"
    return raised


for _stage in STAGES:
    row()(version_raised(_stage))
