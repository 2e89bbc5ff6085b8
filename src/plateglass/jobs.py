"""Run one stage of one plate: what the ledger says is to do, and nothing else.

Order of events, each of which may be the last before a kill: a note says that the job has begun, other
keys' markers go, wells are added to the ledger as they finish, the marker comes, the note goes. Where a
job finds the note of one before it, files are compared byte by byte with what the ledger says of them.
"""

import importlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from plateglass import formats, lock, markers, store, surprises
from plateglass.errors import DamageError, DataError, UserError
from plateglass.files import digest, write_atomically
from plateglass.layouts import Format
from plateglass.ledger import DAMAGED, WHOLE, Ledger, fingerprint, todo
from plateglass.plan import PLATE_TABLES, ingest_key
from plateglass.project import UNITS_WELLS, Project
from plateglass.raw import Raw, scan, unreadable
from plateglass.reasons import some
from plateglass.stages import SCREEN, STAGES
from plateglass.wells import Job, Result, begin_imports, peak_mb, peak_worker_mb


def run(project: Project, stage: str, plate: str, key: str, threads: int) -> None:
    """Do what is to be done of a (plate, stage), then set the marker of ``key``.

    Raises
    ------
    PlateglassError
        Something the user can mend; finished wells stay in the ledger.
    """
    with lock.held(project.state / "locks" / plate):
        _run(project, stage, plate, key, threads)


def _run(project: Project, stage: str, plate: str, key: str, threads: int) -> None:
    if stage in STAGES and not key.partition(".")[0].endswith(project.basis(stage, plate)):
        raise UserError(
            f"{plate} {stage}: the settings or a platemap changed after this run was planned, or wells "
            "came out otherwise than it knew; nothing was computed, give the same command again"
        )
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
        model=project.model_key() if project.has_model else None,
    )
    start = time.monotonic()
    try:
        if stage == "demo":
            from plateglass.layouts.demo import render

            render(project.plate(plate))
            left = []
        elif STAGES[stage].wells:
            left = _wells(project, job, doubted)
        else:
            left = _whole(project, job, doubted)
    except DamageError as error:
        _doubt(project, error.path)
        raise
    finally:
        (job.state / "progress" / f"{plate}.{stage}").unlink(missing_ok=True)
    _note_cost(job, time.monotonic() - start)
    markers.write(project, plate, stage, key, left)
    begun.unlink()


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
    plate = place[2] if place[0] == project.state.name else place[0]
    for stage in STAGES:
        if any((project.state / "done").glob(f"{plate}.{stage}.*")):
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


def _wells(project: Project, job: Job, doubted: bool) -> list[Path]:
    """A stage that works by the well. Returns what its marker vouches for.

    ``doubted``: a job that was cut off may have left a well half rewritten whose line tells of before.
    """
    stage, plate = job.stage, job.plate
    ledger = project.ledger(stage, plate)
    found, usual, unplanned = Raw({}), None, []
    if stage == "ingest":
        found, usual, unplanned = _look(project, job, ledger)
        if not ledger.path.exists() and markers.remove_later(project, plate, stage):
            _surprise(job)
            unplanned.append("what was known of its wells was lost")
    wants = project.wants(stage, plate, found.wells, usual and str(usual))
    if stage == "features":
        _freeze_units(project, plate)
    root = {"ingest": job.store, "attribute": job.plate_dir / "attribution.zarr"}.get(stage)
    # a job may have been killed before it noted what it stored
    stored = set(store.wells(root)) if doubted and root else set()
    lost = markers.damaged(ledger, job.plate_dir, doubted) | (stored & ledger.quarantined())
    reasons = todo(ledger, wants, lost)
    gone = sorted(well for well, reason in reasons.items() if reason == "removed")
    if stage == "ingest":
        _check_raw(project, job, found, reasons, gone)
        _take_back_planned(job, {well for well, why in reasons.items() if why != DAMAGED})
    gone = sorted({*gone, *(stored - wants.keys())})
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
        quarantined, others = 0, []
        given = {"found": found.listing, "usual": usual} if stage == "ingest" else {}
        for count, result in enumerate(module.run(job, wells, **given) if wells else (), 1):
            well = result.well
            facts = {"images": found.there[well]} if stage == "ingest" else {}
            _record(job, ledger, wants[well], result, others=others, **facts)
            quarantined += result.quarantine is not None
            job.progress(count, len(wells))
        if quarantined:
            print(f"{plate} {stage}: {quarantined} well(s) quarantined, see the report")
        if others:
            unplanned.append(
                f"{some(others)} came out otherwise than before, of what seemed the same"
            )
        if hasattr(module, "finish"):
            module.finish(job)
        ledger.compact()
    if stage == "ingest" and not _is_planned(project, job, found):
        raise DataError(
            f"plate {plate}: its files changed after this run was planned; what is there now was "
            "ingested, give the same command again for the rest"
        )
    if unplanned:
        raise DataError(
            f"plate {plate}: {'; '.join(unplanned)}, which this run did not know: give the same command "
            "again for what is made of them"
        )
    if stage == "attribute":
        store.write_groups(root)
    groups = [root, *root.glob("[!.]*")] if root else []
    return [path for group in groups if (path := group / "zarr.json").exists()]


def _look(project: Project, job: Job, ledger: Ledger) -> tuple[Raw, Format | None, list[str]]:
    """What lies in a plate's folder, what images are like there, and what of that no plan could know.

    No format where nothing could be listed, and the wells are told as they were.
    """
    plate = job.plate
    found, usual, unplanned = scan(project, plate), None, []
    if found.doubt:
        raise DataError(found.doubt)
    if found.listing is not None:
        usual, turned = formats.judge(project, plate, found, ledger)
        seen = {well: entry["parts"]["in"] for well, entry in ledger.items()}
        # files changed, so that all of the plate's stages were asked for
        planned = bool(seen) and seen != found.wells and not _teaches(job)
        if turned and planned:
            surprises.note(project.state, plate, for_networks=True)
        elif turned:
            _surprise(job)
            unplanned.append(f"most wells that were looked at have images of {usual} now")
        formats.note(project, plate, usual)
    return found, usual, unplanned


def _is_planned(project: Project, job: Job, found: Raw) -> bool:
    """Whether what lies in the plate's folder is what the plan saw there."""
    return job.key.startswith(ingest_key(project, job.plate, found.wells))


def _check_raw(
    project: Project, job: Job, found: Raw, reasons: dict[str, str], gone: list[str]
) -> None:
    """DataError where wells were kept that must be read, or are gone that the plan still saw."""
    if why := unreadable(job.plate, found, reasons):
        raise DataError(why)
    if gone and not _is_planned(project, job, found):
        raise DataError(
            f"plate {job.plate}: its files changed after this run was planned, {some(gone)} are gone: "
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


def _record(
    job: Job, ledger: Ledger, parts: dict, result: Result, others: list[str], **facts: Any
) -> None:
    """One line of the ledger, and one of the log.

    A well that was made of what seems the same as before, and came out otherwise, is added to
    ``others``; the first of them is a surprise.
    """
    result.sign(job.plate_dir)
    line = {"parts": parts, "key": None, "files": result.stored or {}, **result.facts, **facts}
    if result.quarantine is None:
        made_from = parts
        if result.content is not None:  # which tells what became of the well, whatever judged it
            made_from = {k: v for k, v in parts.items() if k != "usual"} | {"in": result.content}
        line["key"] = fingerprint(job.stage, made_from)
        how = "unchanged" if job.known.get(result.well) == line["key"] else "done"
        print(f"{result.well} {how} {json.dumps(result.counts)}")
    else:
        line["quarantine"] = result.quarantine
        print(f"{result.well} quarantined: {result.quarantine}")
    if result.left_out:
        line["left_out"] = list(result.left_out)
    before, told = ledger.get(result.well), ("key", "quarantine", "left_out")
    as_before = before is None or all(before.get(k) == line.get(k) for k in told)
    if not as_before and before["parts"] == parts:
        if not others:
            _surprise(job)
        others.append(result.well)
    ledger.add(result.well, **line)


def _surprise(job: Job) -> None:
    """No plan could know it: what was planned is refused, and what is made of the plate is looked at."""
    surprises.note(job.state, job.plate)
    _take_back(job, _teaches(job))  # should the note be lost


def _take_back_planned(job: Job, changed: set[str]) -> None:
    """What is made of wells to be ingested for another reason than damage: it is asked for by now.

    Else, where settings or images are put back half-way, it would stand by its old key, and nobody would
    see that an image is another, or judged otherwise.
    """
    project, plate = job.project, job.plate
    units = project.units_wells(plate, project.ledger("ingest", plate))
    if changed:
        _take_back(job, _teaches(job) and bool(changed & {*units, *project.classed(plate)}))


def _take_back(job: Job, networks: bool) -> None:
    """What comes after the stage is done no more: of the plate, of the screen, of networks too."""
    markers.remove_later(job.project, job.plate, job.stage)
    markers.remove_later(job.project, *(("*", "segment") if networks else (SCREEN, "train")))


def _teaches(job: Job) -> bool:
    return job.project.trains and job.plate in job.project.training_plates()


def _whole(project: Project, job: Job, doubted: bool) -> list[Path]:
    """A stage of a whole plate or of the screen. Returns the files its marker vouches for."""
    names = _names_of_whole(job)
    if job.plate == SCREEN and job.stage != "train":
        _put_back_tables(project)
    ledger, key = project.ledger(job.stage, job.plate), project.whole_key(job.stage, job.plate)
    if ledger.get(WHOLE, {}).get("key") == key and not markers.damaged(
        ledger, job.plate_dir, doubted
    ):
        print(f"{job.plate} {job.stage}: made of what it would be made of now")
    else:
        job.plate_dir.mkdir(parents=True, exist_ok=True)
        module = importlib.import_module(f"plateglass.stages.{job.stage}")
        if job.stage == "train":
            for plate in project.training_plates():
                _freeze_units(project, plate)
            learnt = module.learn(replace(job, model=key))  # meanwhile the old networks stand
        ledger.add(WHOLE, gone=True)  # half written, it is neither the old nor the new
        if job.stage == "train":
            module.write(replace(job, model=key), learnt)
        else:
            (module.run_screen if job.plate == SCREEN else module.run_plate)(job)
        ledger.add(WHOLE, key=key, files={name: digest(job.plate_dir / name) for name in names})
        ledger.compact()
    if job.stage != "train":
        tables = job.state / "tables" / job.plate
        tables.mkdir(parents=True, exist_ok=True)
        for name in names:
            keep(job.plate_dir / name, tables / name)
    if job.stage == "report" and job.plate == SCREEN:
        hold_to_strict(project)
    return [job.plate_dir / name for name in names]


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
