"""Full and read-only disks, plates that vanish in the middle, and two runs at once."""

import shutil
import subprocess
import sys

import pytest
from changes import set_section, wells

from plateglass import cli, jobs
from plateglass.errors import SetupError
from plateglass.markers import damaged
from screen import Screen, assert_same
from terminal import command, environment, snakemake


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MB of its own. Skips where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"cannot mount: {error}")
    if done.returncode:
        pytest.skip(f"a disk of its own needs the right to mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def there(disk, tmp_path):
    """A screen whose results lie on that disk."""
    screen = Screen(tmp_path / "screen", train=False, results=str(disk / "results"))
    screen.results = disk / "results"
    return screen


def job(screen, stage, plate):
    """A job's exit code, as Snakemake starts it."""
    key = screen.plan().keys[plate, stage]
    settings = str(screen.folder / "config.yaml")
    return cli.main([stage, plate, "--config", settings, "--key", key])


def fill(disk, left):
    """Fill a disk up to ``left`` bytes."""
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(free - left))


def test_a_full_disk_is_told_before_and_in_the_middle_and_nothing_is_lost(there, disk, capsys):
    code = None
    key = there.plan().keys["P1", "ingest"]
    fill(disk, left=300_000)
    with pytest.raises(SetupError, match=r"GB are free, about .* GB are needed .* make room"):
        there.plan()
    settings = str(there.folder / "config.yaml")
    code = cli.main(["ingest", "P1", "--config", settings, "--key", key])
    said = capsys.readouterr().err
    assert code == 4 and "No space left on device; make room on that disk" in said
    assert "Traceback" not in said and "Finished wells are kept" in said
    done = there.project().ledger("ingest", "P1")
    assert 0 < len(done) < 8
    (disk / "filler").unlink()
    ran = there.run(until="ingest")
    assert sorted(ran) == sorted(
        set(wells(there, ["P1", "P2"], ["ingest"])) - {("P1", "ingest", w) for w in done}
    )
    ledger = there.project().ledger("ingest", "P1")
    assert ledger.computed().keys() == there.specs["P1"].wells.keys()
    assert damaged(ledger, there.results / "P1", full=True) == set()


def test_read_only_results_are_told_before_any_job(there, disk, capsys):
    there.run(until="ingest")
    key = there.plan().keys["P1", "segment"]
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(SetupError, match=r"results: cannot be written .mounted read-only"):
        there.plan()
    settings = str(there.folder / "config.yaml")
    assert cli.main(["segment", "P1", "--config", settings, "--key", key]) == 4
    said = capsys.readouterr().err
    assert "Read-only file system; mount it for writing" in said and "Traceback" not in said
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert sorted(there.run(until="segment")) == sorted(wells(there, ["P1", "P2"], ["segment"]))


@pytest.mark.parametrize("how", ["folder gone", "files gone"])
def test_a_plate_that_vanishes_in_the_middle_is_not_judged(tmp_path, monkeypatch, how):
    screen = Screen(tmp_path, train=False)
    record, raw = jobs._record, tmp_path / "raw/P2"

    def vanish(job, ledger, parts, result, **facts):
        if (job.plate, result.well) == ("P2", "A03"):
            raw.rename(tmp_path / "away")
            if how == "files gone":
                raw.mkdir()
        return record(job, ledger, parts, result, **facts)

    monkeypatch.setattr(jobs, "_record", vanish)
    with pytest.raises(SetupError, match=r"P2_A04_s1_\w+\.tif was there when the job began"):
        screen.run(until="ingest")
    monkeypatch.undo()
    assert screen.project().ledger("ingest", "P2").keys() == {"A01", "A02", "A03"}
    assert "P2" in screen.plan().refused
    if how == "files gone":
        raw.rmdir()
    (tmp_path / "away").rename(raw)
    rest = sorted(screen.run(until="ingest"))
    assert rest == [("P2", "ingest", w) for w in ("A04", "A05", "A06", "B01", "B02")]
    assert jobs.quarantined(screen.project()) == []


HOLD = "from plateglass import lock, wells; from pathlib import Path; import sys; "
HOLD += "f = lock.take(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def held():
    """Start a process that holds a lock; returns a function of the lock's path."""
    running = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_second_run_on_the_same_results_stops_with_a_message(screen, tmp_path, held):
    """Also from another checkout, where Snakemake's own lock does not reach."""
    screen.replace_image("P2", "B01")
    other = held(screen.results / ".plateglass/lock")
    (tmp_path / "elsewhere").mkdir()
    code, said = snakemake(screen, check=False, folder=tmp_path / "elsewhere")
    assert code != 0
    assert f"another run is at work on these results (process {other.pid} on " in said
    assert "Traceback" not in said
    assert screen.plan().reasons["P2", "ingest"] == {"B01": "input changed"}
    other.kill()  # not by its own will: the system takes the lock back
    other.wait()
    assert sorted(screen.run(until="ingest")) == [("P2", "ingest", "B01")]


def test_a_job_waits_for_one_that_outlived_its_snakemake(screen, held, capfd):
    screen.replace_image("P2", "B01")
    other = held(screen.results / ".plateglass/locks/P2")
    key = screen.plan().keys["P2", "ingest"]
    settings = str(screen.folder / "config.yaml")
    words = [sys.executable, "-m", "plateglass.cli", "ingest", "P2", "--config", settings]
    waiting = subprocess.Popen([*words, "--key", key], stdout=subprocess.PIPE, text=True)
    assert waiting.stdout.readline().startswith(
        f"waits for another job of the plate: process {other.pid} on "
    )
    assert waiting.poll() is None
    other.kill()
    said = waiting.communicate(timeout=300)[0]
    assert waiting.returncode == 0 and "P2 ingest: 1 of 8 wells to do" in said


@pytest.mark.long
def test_two_runs_at_once_from_two_folders(finished, tmp_path):
    screen = finished.copy(tmp_path / "screen")
    shutil.rmtree(screen.results)
    (tmp_path / "elsewhere").mkdir()
    runs = []
    for folder in (screen.folder, tmp_path / "elsewhere"):
        given = command(screen, folder=folder)
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        runs.append(subprocess.Popen(given, env=environment(), **pipe))
    said = [run.communicate(timeout=900)[0] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(map(bool, codes)) == [False, True], said
    assert "another run is at work on these results" in said[codes.index(max(codes, key=bool))]
    assert "Nothing to be done" in snakemake(screen)
    assert_same(screen, finished)


@pytest.mark.long
def test_a_refused_plate_lets_the_others_finish_and_the_code_says_so(screen):
    raw = screen.folder / "raw/P2"
    screen.replace_image("P1", "B01")
    set_section(screen, "run", strict=False)
    raw.rename(raw.with_name("away"))
    code, said = snakemake(screen, check=False)
    assert code != 0 and "cannot be read" in said and str(raw) in said
    project = screen.project()
    assert project.ledger("features", "P1").keys() == screen.specs["P1"].wells.keys()
    assert [*screen.plan().reasons] == []
    raw.with_name("away").rename(raw)
    assert "Nothing to be done" in snakemake(screen)
