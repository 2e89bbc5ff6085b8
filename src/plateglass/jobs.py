"""Run one stage of one plate: what the ledger says is to do, and nothing else.

Order of events, each of which may be the last before a kill: a note says that the job has begun, its
marker of before goes, wells are added to the ledger as they finish, the new marker comes, the note goes.
Where a job finds the note of one before it, files are compared byte by byte with what the ledger says.
"""

import importlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from plateglass import formats, keys, lock, markers, store
from plateglass.contents import Contents
from plateglass.errors import DamageError, DataError, UserError
from plateglass.files import digest, sweep, write_atomically
from plateglass.keys import Key
from plateglass.layouts import Format
from plateglass.ledger import WHOLE, Ledger, fingerprint, todo, told
from plateglass.plan import PLATE_TABLES
from plateglass.project import UNITS_WELLS, Project
from plateglass.raw import Raw, listed, scan, unreadable
from plateglass.reasons import some
from plateglass.stages import SCREEN, STAGES, earlier
from plateglass.wells import Job, Result, begin_imports, peak_mb, peak_worker_mb

AGAIN = "give the same command again"
Said = tuple[dict[str, Any], list[Path]]  # what a marker is to say, and the files to vouch for


def run(project: Project, stage: str, plate: str, key: str, threads: int) -> None:
    """Do what is to be done of a (plate, stage), then set the marker of ``key``.

    Raises
    ------
    PlateglassError
        Something the user can mend; finished wells stay in the ledger.
    """
    with lock.held(project.state / "locks" / plate):
        try:
            _run(project, stage, plate, key, threads)
        except DamageError as error:
            _doubt(project, error.path)
            raise


def _run(project: Project, stage: str, plate: str, key: str, threads: int) -> None:
    asked, contents = Key.read(key), Contents(project)
    if plate not in (SCREEN, *project.names):
        raise UserError(
            f"plate {plate} was taken from the sheet after this run was planned; nothing was computed, "
            f"{AGAIN}"
        )
    if stage in STAGES:
        _check_asked(asked, contents, stage, plate)
    for name in project.training_plates() if stage == "train" else [plate]:
        _keep_platemap(project, name)
    begun = markers.begun(project, plate, stage)
    doubted = markers.looks_closely(project, plate, stage)
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    markers.remove(project, plate, stage)
    if stage == "ingest":
        # its new pixels have no labels: segment must look, whatever comes between
        markers.remove(project, plate, "segment")
    job = Job(
        stage=stage,
        plate=plate,
        project=project,
        key=key,
        threads=threads,
    )
    for folder in ("ledger", "done"):
        sweep(job.state / folder, f"{plate}.{stage}.")
    start = time.monotonic()
    try:
        if stage == "demo":
            from plateglass.layouts.demo import render

            render(project.plate(plate))
            said, left = {}, []
        elif STAGES[stage].wells:
            said, left = _wells(job, asked, contents, doubted)
        else:
            made = _networks if stage == "train" else _tables
            said, left = made(job, asked, contents, doubted)
    finally:
        (job.state / "progress" / f"{plate}.{stage}").unlink(missing_ok=True)
    _note_cost(job, time.monotonic() - start)
    markers.write(project, plate, stage, key, left, **said)
    begun.unlink()


def _check_asked(asked: Key, contents: Contents, stage: str, plate: str) -> None:
    """What the job is to be made from is what its plan knew.

    Raises
    ------
    UserError
        Settings or platemaps are others.
    DamageError
        A ledger in front tells otherwise than its stage's marker: lines are lost, or others. Or the
        networks that the job applies or reports of are not, byte for byte, what train left.
    """
    project = contents.project
    if asked.basis != keys.short(project.basis(stage, plate)):
        raise UserError(
            f"{plate} {stage}: the settings or a platemap changed after this run was planned; "
            f"nothing was computed, {AGAIN}"
        )
    plates = project.training_plates() if stage == "train" else [plate]
    in_front = [of for of in project.well_stages() if of in earlier(stage)]
    for name, of in itertools.product(plates, in_front):
        marker = contents.markers.get((name, of))
        if marker and marker.output and marker.output != contents.output(of, name):
            raise DamageError(project.ledger_path(of, name), "does not tell what its job left")
    if project.trains and stage in ("features", "attribute", "report"):
        whole = project.model_key() == contents.output("train", SCREEN)
        if whole and stage != "report":  # which shows what is told of them alone
            learnt = project.ledger("train", SCREEN)
            whole = not markers.damaged(learnt, project.config.results / SCREEN, full=True)
        if not whole:
            raise DamageError(project.model_dir / "model.json", "is not what train left")


def _keep_platemap(project: Project, plate: str) -> None:
    """A copy of the plate's platemap, which may lie on a share that comes and goes."""
    path = None if plate == SCREEN else project.plate(plate).platemap
    if path is None:
        return
    copy = project.maps.copy_of(plate)
    try:
        content = path.read_bytes()
    except OSError:  # out of reach by now
        return
    if not copy.exists() or copy.read_bytes() != content:
        write_atomically(copy, content)
        for other in set(copy.parent.glob(f"{plate}.*")) - {copy}:
            other.unlink()


def _doubt(project: Project, damaged_file: Path) -> None:
    """All that was made of the plate that a damaged file belongs to is looked at by the next run."""
    try:
        place = damaged_file.relative_to(project.config.results).parts
    except ValueError:  # a model from elsewhere
        return
    if place[:2] == (project.state.name, "train"):  # what networks learn from; collected again
        shutil.rmtree(project.state / "train", ignore_errors=True)
        return
    plate = place[2].partition(".")[0] if place[0] == project.state.name else place[0]
    (project.state / "begun").mkdir(exist_ok=True)
    for stage in STAGES:
        if project.ledger_path(stage, plate).exists():
            markers.begun(project, plate, stage).touch()
        markers.remove(project, plate, stage)


def _note_cost(job: Job, seconds: float) -> None:
    """One line of ``costs.jsonl``: wall time, and peak memory of the largest process (MB)."""
    cost = {
        "plate": job.plate,
        "stage": job.stage,
        "key": job.key,
        "threads": job.threads,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb()),
        "peak_worker_mb": round(peak_worker_mb(job)),
    }
    print(json.dumps(cost))
    job.state.mkdir(parents=True, exist_ok=True)
    with (job.state / "costs.jsonl").open("a") as file:
        file.write(json.dumps(cost) + "\n")


def _wells(job: Job, asked: Key, contents: Contents, doubted: bool) -> Said:
    """A stage that works by the well.

    ``doubted``: a job that was cut off may have left a well half rewritten whose line tells of before.
    """
    project, stage, plate = job.project, job.stage, job.plate
    ledger = project.ledger(stage, plate)
    as_found = {well: told(entry) for well, entry in ledger.items()}
    found, usual = Raw({}), None
    if stage == "ingest":
        found, usual = _look(project, plate, ledger)
    wants = project.wants(stage, plate, found.wells, usual and str(usual))
    if stage == "features":
        _freeze_units(project, plate)
    # before the work: what changes meanwhile was not used
    inputs = contents.inputs(stage, plate, listed(found.wells))
    root = {"ingest": job.store, "attribute": job.plate_dir / "attribution.zarr"}.get(stage)
    # also what a killed job did not note any more, or of which the note is lost
    stored = set(store.wells(root)) if root else set()
    sweep(job.state / "parts" / plate / stage)
    left = job.wells_with_part(stage)
    lost = markers.damaged(ledger, job.plate_dir, doubted) | (stored & ledger.quarantined())
    reasons = todo(ledger, wants, lost)
    gone = sorted(well for well, reason in reasons.items() if reason == "removed")
    if stage == "ingest":
        _check_raw(plate, asked, found, reasons, gone)
    gone = sorted({*gone, *((stored | left) - wants.keys())})
    wells = sorted(reasons.keys() - set(gone))
    print(f"{plate} {stage}: {len(wells)} of {len(wants)} wells to do, {len(gone)} to take out")
    if wells or gone or stage == "ingest":  # ingest: channels may have other colours
        begin_imports(job, wells)
        module = importlib.import_module(f"plateglass.stages.{stage}")
        if gone:
            module.remove(job, gone)
            for well in gone:
                ledger.add(well, gone=True)
        known = {w: e["key"] for w, e in ledger.computed().items() if w not in lost}
        job = replace(job, known=known)
        job.progress(0, len(wells))
        quarantined = 0
        given = {"found": found.listing, "usual": usual} if stage == "ingest" else {}
        for count, result in enumerate(module.run(job, wells, **given) if wells else (), 1):
            facts = {"images": found.there[result.well]} if stage == "ingest" else {}
            _record(job, ledger, wants[result.well], result, **facts)
            quarantined += result.quarantine is not None
            job.progress(count, len(wells))
        if quarantined:
            print(f"{plate} {stage}: {quarantined} well(s) quarantined, see the report")
        if hasattr(module, "finish"):
            module.finish(job)
        ledger.compact()
    if stage == "ingest" and not _is_planned(asked, found):
        raise DataError(
            f"plate {plate}: its files changed after this run was planned; what is there now was "
            f"ingested, {AGAIN} for the rest"
        )
    others = sorted(
        well for well, was in as_found.items() if well in ledger and was != told(ledger[well])
    )
    _expect(contents, stage, plate, asked, ledger.output(), others)
    if stage == "attribute":
        store.write_groups(root)
    groups = [root, *root.glob("[!.]*")] if root else []
    files = [path for group in groups if (path := group / "zarr.json").exists()]
    return {"inputs": inputs, "output": ledger.output()}, files


def _expect(
    contents: Contents,
    stage: str,
    plate: str,
    asked: Key,
    output: str | None,
    others: Sequence[str] = (),
) -> None:
    """DataError where something came out that its plan ruled out: not all that follows was asked for.

    ``others`` are the wells that came out otherwise than before, as far as this job knows. No marker is
    written, so the next plan has all that follows looked at.
    """
    if asked.output not in (keys.ANY, keys.short(output)):
        what = some(others) or ("wells" if STAGES[stage].wells else "what it is made of")
        raise DataError(
            f"{plate} {stage}: {what} came out otherwise than before, of what seemed the same, which this "
            f"run did not know: {AGAIN} for what is made of them"
        )
    if asked.model == keys.ANY or asked.model != keys.short(contents.output("train", SCREEN)):
        return  # networks are to be others, or are by now
    learnt = contents.learnt.get(plate, {}).get(stage)
    if learnt not in (None, contents.project.taught(stage, plate)):
        raise DataError(
            f"{plate} {stage}: training wells came out otherwise than before, which this run did not know: "
            f"{AGAIN} for what is made of them"
        )


def _look(project: Project, plate: str, ledger: Ledger) -> tuple[Raw, Format | None]:
    """What lies in a plate's folder, and what images are like there.

    No format where nothing could be listed, and the wells are told as they were.
    """
    found = scan(project, plate)
    if found.doubt:
        raise DataError(found.doubt)
    if found.listing is None:
        return found, None
    return found, formats.judge(project, found, ledger)


def _is_planned(asked: Key, found: Raw) -> bool:
    """Whether what lies in the plate's folder is what the plan saw there."""
    return asked.listed == keys.short(listed(found.wells))


def _check_raw(
    plate: str, asked: Key, found: Raw, reasons: dict[str, str], gone: list[str]
) -> None:
    """DataError where wells were kept that must be read, or are gone that the plan still saw."""
    if why := unreadable(plate, found, reasons):
        raise DataError(why)
    if gone and not _is_planned(asked, found):
        raise DataError(
            f"plate {plate}: its files changed after this run was planned, {some(gone)} are gone: "
            "nothing was touched. Give the same command again if that is meant"
        )


def _freeze_units(project: Project, plate: str) -> None:
    """Keep units wells that were chosen by a hash of many, so that a well more moves none."""
    known = project.ledger("ingest", plate)
    path = project.state / "units" / f"{plate}.json"
    if project.negatives(plate, known):
        path.unlink(missing_ok=True)
    elif len(project.frozen_units(plate)) < UNITS_WELLS:
        chosen = project.units_wells(plate, known)
        if len(chosen) == UNITS_WELLS:
            write_atomically(path, json.dumps({"wells": chosen}))


def _record(job: Job, ledger: Ledger, made_of: dict, result: Result, **facts: Any) -> None:
    """One line of the ledger, and one of the log."""
    result.sign(job.plate_dir)
    line = {"parts": made_of, "key": None, "files": result.stored or {}, **result.facts, **facts}
    if result.quarantine is None:
        made_from = made_of
        if result.content is not None:  # which tells what became of the well, whatever judged it
            made_from = {k: v for k, v in made_of.items() if k != "usual"} | {"in": result.content}
        line["key"] = fingerprint(job.stage, made_from)
        how = "unchanged" if job.known.get(result.well) == line["key"] else "done"
        print(f"{result.well} {how} {json.dumps(result.counts)}")
    else:
        line["quarantine"] = result.quarantine
        print(f"{result.well} quarantined: {result.quarantine}")
    if result.left_out:
        line["left_out"] = list(result.left_out)
    ledger.add(result.well, **line)


def _networks(job: Job, asked: Key, contents: Contents, doubted: bool) -> Said:
    """The screen's networks, from its training plates. Until new ones are learnt, the old ones stand."""
    project = job.project
    plates = project.training_plates()
    for name in plates:
        _freeze_units(project, name)
    taught = {name: contents.taught(name, anew=True) for name in plates}
    key = contents.key_of_taught(taught)
    _expect(contents, job.stage, job.plate, asked, key)
    ledger = project.ledger(job.stage, job.plate)
    if _stands(job, ledger, key, doubted):
        if ledger[WHOLE].get("taught") != taught:
            ledger.add(WHOLE, **ledger[WHOLE] | {"taught": taught})
            ledger.compact()
    else:
        _clear(job)
        train, job = importlib.import_module("plateglass.stages.train"), replace(job, model=key)
        learnt = train.learn(job, partial(_still_teaches, project, key))
        _make(job, ledger, key, lambda: train.write(job, learnt), taught=taught)
    return {"inputs": key}, [job.plate_dir / name for name in _names_of_whole(job)]


def _tables(job: Job, asked: Key, contents: Contents, doubted: bool) -> Said:
    """Tables, or the report, of a plate or of the screen."""
    project, stage, plate = job.project, job.stage, job.plate
    if plate == SCREEN:
        _put_back_tables(project)
    key = contents.inputs(stage, plate)
    _expect(contents, stage, plate, asked, key)
    ledger = project.ledger(stage, plate)
    if not _stands(job, ledger, key, doubted):
        module = importlib.import_module(f"plateglass.stages.{stage}")
        run = module.run_screen if plate == SCREEN else module.run_plate
        _clear(job)
        _make(job, ledger, key, lambda: run(job))
    names = _names_of_whole(job)
    kept = job.state / "tables" / plate
    kept.mkdir(parents=True, exist_ok=True)
    for name in names:
        keep(job.plate_dir / name, kept / name)
    if stage == "report" and plate == SCREEN:
        hold_to_strict(project)
    return {"inputs": key}, [job.plate_dir / name for name in names]


def _stands(job: Job, ledger: Ledger, key: str, doubted: bool) -> bool:
    """Whether a stage that works by no well left its files, whole, from the same inputs."""
    if ledger.output() != key or markers.damaged(ledger, job.plate_dir, doubted):
        return False
    print(f"{job.plate} {job.stage}: made of what it would be made of now")
    return True


def _clear(job: Job) -> None:
    """A folder for such a stage's files, without what a killed job half wrote."""
    job.plate_dir.mkdir(parents=True, exist_ok=True)
    for name in _names_of_whole(job):
        sweep((job.plate_dir / name).parent, Path(name).name)


def _make(job: Job, ledger: Ledger, key: str, make: Callable[[], object], **more: Any) -> None:
    """The files of a stage that works by no well; ``more`` is told in the ledger beside their key."""
    ledger.add(WHOLE, gone=True)  # half written, it is neither the old nor the new
    make()
    files = {name: digest(job.plate_dir / name) for name in _names_of_whole(job)}
    ledger.add(WHOLE, key=key, files=files, **more)
    ledger.compact()


def _still_teaches(project: Project, key: str) -> None:
    """DataError where another run made something else of the training wells while crops were cut."""
    contents = Contents(project)
    taught = {name: contents.taught(name, anew=True) for name in project.training_plates()}
    if contents.key_of_taught(taught) != key:
        raise DataError(
            f"{SCREEN} train: training wells came out otherwise while their crops were cut; {AGAIN}"
        )


def _names_of_whole(job: Job) -> list[str]:
    """What such a stage leaves, in the plate's folder."""
    if job.stage == "train":
        tensors = ("model/model.json", "model/model.safetensors", "model/donors.safetensors")
        return [*tensors, *(f"model/{t}.parquet" for t in ("history", "channels", "controls"))]
    if job.stage == "report":
        return ["report.html"]
    if job.plate == SCREEN:
        return ["wells_selected.parquet"]
    return [f"{table}.parquet" for table in PLATE_TABLES]


def _put_back_tables(project: Project) -> None:
    """Tables that were deleted: thin rules put back a plate's, but not those of a refused one."""
    for plate in project.names:
        for kept in (project.state / "tables" / plate).glob("[!.]*.parquet"):
            shown = project.config.results / plate / kept.name
            if not shown.exists():
                shown.parent.mkdir(parents=True, exist_ok=True)
                keep(kept, shown)


def keep(path: Path, kept: Path) -> None:
    """A second name for a finished file in the engine's folder, from which a deleted one returns."""
    if kept.exists() and kept.samefile(path):  # renaming one name of a file to another does nothing
        return
    temporary = kept.with_name(f".{kept.name}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(path)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    temporary.replace(kept)


def hold_to_strict(project: Project) -> None:
    """``run.strict``: where everything is done and shown, quarantine still fails the run."""
    reasons = quarantined(project) if project.config.run.strict else []
    if reasons:
        lines = "\n".join(f"  {plate} {well}: {why}" for plate, well, why in reasons)
        raise DataError(f"run.strict: {len(reasons)} well(s) or site(s) in quarantine:\n{lines}")


def quarantined(project: Project) -> list[tuple[str, str, str]]:
    """(plate, well, reason) of all wells without a result and of sites left out, over all stages."""
    return [
        (plate, well, why)
        for plate in project.names
        for stage in project.well_stages()
        for well, entry in sorted(project.ledger(stage, plate).items())
        for why in ([entry["quarantine"]] if entry.get("quarantine") else entry.get("left_out", ()))
    ]
