"""``run.dask.scheduler``: wells over a running cluster, of which a worker is killed half-way."""

import os
import shutil

import pytest

from plateglass import jobs, wells
from plateglass.errors import SetupError
from running_dask import running_dask
from screen import Screen, assert_same

KILLED_AFTER = 3  # wells


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return Screen(tmp_path_factory.mktemp("raw"))


def copy(screen, folder, **run):
    shutil.copytree(screen.folder, folder, copy_function=shutil.copy2)
    other = Screen.__new__(Screen)
    other.__dict__ |= screen.__dict__ | {"folder": folder, "results": folder / "results"}
    other.settings = {**screen.settings, "run": {**screen.settings["run"], **run}}
    other.counts = {}
    other.write()
    return other


def killing(worker, monkeypatch):
    """Kill the worker after some wells are in the ledger; returns the wells recorded afterwards."""
    record, before, after = jobs._record, [], []

    def note(job, ledger, parts, result):
        record(job, ledger, parts, result)
        (after if worker.poll() is not None else before).append(result.well)
        if len(before) == KILLED_AFTER and not after:
            worker.kill()
            worker.wait()

    monkeypatch.setattr(jobs, "_record", note)
    return after


@pytest.mark.parametrize("until", ["ingest", pytest.param(None, marks=pytest.mark.long)])
def test_a_worker_killed_half_way_changes_nothing(raw, tmp_path, monkeypatch, until):
    alone = copy(raw, tmp_path / "alone")
    alone.run(until=until)
    with running_dask(tmp_path) as (file, team):
        spread = copy(raw, tmp_path / "spread", dask={"scheduler": str(file)})
        after = killing(team[0], monkeypatch)
        ran = spread.run(until=until)
        assert team[0].poll() is not None and team[1].poll() is None
    assert len(after) >= 2 * len(raw.specs["P1"].wells) - KILLED_AFTER
    assert {w for p, s, w in ran if (p, s) == ("P1", "ingest")} == set(raw.specs["P1"].wells)
    assert_same(spread, alone)
    for plate in raw.specs:
        ours, theirs = (s.project().ledger("ingest", plate) for s in (spread, alone))
        assert {w: e["key"] for w, e in ours.items()} == {w: e["key"] for w, e in theirs.items()}


def test_wells_run_in_the_workers_and_no_more_than_two_a_thread_wait(raw, tmp_path, monkeypatch):
    with running_dask(tmp_path) as (file, team):
        spread = copy(raw, tmp_path / "spread", dask={"scheduler": str(file)})
        job = wells.Job("ingest", "P1", spread.project().config, spread.project().sheet)
        sent = []

        def source():
            for well in map(str, range(40)):
                sent.append(well)
                yield well

        with wells.client(job) as dask:
            dask.wait_for_workers(2)
            back = []
            for found in wells._spread(
                dask, lambda job, well: (os.getpid(), well), job, source(), {}
            ):
                back.append(found)
                assert len(sent) <= len(back) + 2 * len(team)
    assert {well for _, well in back} == set(sent) and len(back) == 40
    assert {pid for pid, _ in back} <= {worker.pid for worker in team}


def test_no_scheduler_and_no_worker_are_said(raw, tmp_path, monkeypatch):
    absent = copy(raw, tmp_path / "absent", dask={"scheduler": "nowhere.json"})
    file = tmp_path / "absent/nowhere.json"
    with pytest.raises(SetupError, match=rf"no scheduler answers at {file} \(no such file\)"):
        absent.run(until="ingest")
    monkeypatch.setattr(wells, "WORKERS_WITHIN", 0.2)
    with running_dask(tmp_path, workers=0) as (file, _):
        idle = copy(raw, tmp_path / "idle", dask={"scheduler": str(file)})
        with pytest.raises(SetupError, match=rf"the scheduler at {file} has no worker"):
            idle.run(until="ingest")
