"""``run.dask.scheduler``: wells over a running cluster, of which processes are killed half-way."""

import os
import shutil
import signal

import pytest

from plateglass import jobs, wells
from plateglass.errors import SetupError
from running_dask import end, running_dask
from screen import Screen, assert_same

ENDED_AFTER = 3  # wells


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


def then(happens, monkeypatch):
    """Once, after some wells are in the ledger, call ``happens``; returns the wells after it."""
    record, before, after = jobs._record, [], []

    def note(job, ledger, parts, result, **facts):
        noted = record(job, ledger, parts, result, **facts)
        (before if len(before) < ENDED_AFTER else after).append(result.well)
        if len(before) == ENDED_AFTER and not after:
            happens()
        return noted

    monkeypatch.setattr(jobs, "_record", note)
    return after


@pytest.mark.parametrize("until", ["ingest", pytest.param(None, marks=pytest.mark.long)])
def test_a_worker_killed_half_way_changes_nothing(raw, tmp_path, monkeypatch, until):
    alone = copy(raw, tmp_path / "alone")
    alone.run(until=until)
    with running_dask(tmp_path) as cluster:
        spread = copy(raw, tmp_path / "spread", dask={"scheduler": str(cluster.file)})
        after = then(lambda: end(cluster.team[0]), monkeypatch)
        ran = spread.run(until=until)
        assert [worker.poll() is None for worker in cluster.team] == [False, True]
    assert len(after) >= 2 * len(raw.specs["P1"].wells) - ENDED_AFTER
    assert {w for p, s, w in ran if (p, s) == ("P1", "ingest")} == set(raw.specs["P1"].wells)
    assert_same(spread, alone)
    for plate in raw.specs:
        ours, theirs = (s.project().ledger("ingest", plate) for s in (spread, alone))
        assert {w: e["key"] for w, e in ours.items()} == {w: e["key"] for w, e in theirs.items()}


def test_a_scheduler_killed_half_way_is_said_and_finished_wells_are_kept(
    raw, tmp_path, monkeypatch
):
    with running_dask(tmp_path, workers=1) as cluster, monkeypatch.context() as patched:
        screen = copy(raw, tmp_path / "screen", dask={"scheduler": str(cluster.file)})
        then(lambda: end(cluster.scheduler), patched)
        said = (
            rf"the scheduler at {cluster.file} went away in the middle; .* the same command again"
        )
        with pytest.raises(SetupError, match=said):
            screen.run(until="ingest")
    kept = set(screen.project().ledger("ingest", "P1"))
    assert len(kept) == ENDED_AFTER
    del screen.settings["run"]["dask"]
    screen.write()
    ran = {well for plate, _, well in screen.run(until="ingest") if plate == "P1"}
    assert ran == set(raw.specs["P1"].wells) - kept


@pytest.mark.long
def test_a_scheduler_that_hangs_is_said(raw, tmp_path, monkeypatch):
    with running_dask(tmp_path, workers=1) as cluster:
        screen = copy(raw, tmp_path / "screen", dask={"scheduler": str(cluster.file)})

        def stopped():
            cluster.scheduler.send_signal(signal.SIGSTOP)
            monkeypatch.setattr(wells, "ANSWERS_WITHIN", 0.5)

        then(stopped, monkeypatch)
        monkeypatch.setattr(wells, "LOOK_EVERY", 0.1)
        with pytest.raises(
            SetupError, match=rf"scheduler at {cluster.file} has not answered for 0.5"
        ):
            screen.run(until="ingest")
    assert len(screen.project().ledger("ingest", "P1")) >= ENDED_AFTER


@pytest.mark.long
def test_the_last_worker_gone_is_waited_for(raw, tmp_path, monkeypatch, capsys):
    with running_dask(tmp_path, workers=1) as cluster:
        screen = copy(raw, tmp_path / "screen", dask={"scheduler": str(cluster.file)})

        def replaced():
            end(cluster.team[0])
            cluster.join()

        then(replaced, monkeypatch)
        monkeypatch.setattr(wells, "LOOK_EVERY", 0.1)  # before another has begun
        ran = screen.run(until="ingest")
    assert {(plate, well) for plate, _, well in ran} == {
        (plate, well) for plate in raw.specs for well in raw.specs[plate].wells
    }
    waited = f"the cluster at {cluster.file} has no worker any more; waiting 600 s for one\n"
    assert capsys.readouterr().out.count(waited) == 1


@pytest.mark.long
def test_the_last_worker_gone_for_long_is_said(raw, tmp_path, monkeypatch):
    with running_dask(tmp_path, workers=1) as cluster:
        screen = copy(raw, tmp_path / "screen", dask={"scheduler": str(cluster.file)})

        def gone():
            end(cluster.team[0])
            monkeypatch.setattr(wells, "WORKERS_WITHIN", 0.1)

        then(gone, monkeypatch)
        monkeypatch.setattr(wells, "LOOK_EVERY", 0.1)
        said = rf"the cluster at {cluster.file} lost its last worker .*, and none joined in 0.1 s"
        with pytest.raises(SetupError, match=said):
            screen.run(until="ingest")
    assert len(screen.project().ledger("ingest", "P1")) == ENDED_AFTER


def test_wells_run_in_the_workers_and_no_more_than_two_a_thread_wait(raw, tmp_path, monkeypatch):
    with running_dask(tmp_path) as cluster:
        spread = copy(raw, tmp_path / "spread", dask={"scheduler": str(cluster.file)})
        job = wells.Job("ingest", "P1", spread.project())
        sent = []

        def source():
            for well in map(str, range(40)):
                sent.append(well)
                yield well

        with wells.client(job, 40) as dask:
            dask.wait_for_workers(2)
            back = []
            for found in wells._spread(
                dask, lambda job, well: (os.getpid(), well), job, source(), None, {}
            ):
                back.append(found)
                assert len(sent) <= len(back) + 2 * len(cluster.team)
    assert {well for _, well in back} == set(sent) and len(back) == 40
    assert {pid for pid, _ in back} <= {worker.pid for worker in cluster.team}


def test_no_scheduler_and_no_worker_are_said(raw, tmp_path, monkeypatch):
    absent = copy(raw, tmp_path / "absent", dask={"scheduler": "nowhere.json"})
    file = tmp_path / "absent/nowhere.json"
    with pytest.raises(SetupError, match=rf"no scheduler answers at {file} \(no such file\)"):
        absent.run(until="ingest")
    monkeypatch.setattr(wells, "WORKERS_WITHIN", 0.2)
    with running_dask(tmp_path, workers=0) as cluster:
        idle = copy(raw, tmp_path / "idle", dask={"scheduler": str(cluster.file)})
        with pytest.raises(SetupError, match=rf"the scheduler at {cluster.file} has no worker"):
            idle.run(until="ingest")
