"""What bench.jobs says of a run's jobs, from what it saw of their processes."""

import csv
import os
import subprocess
import sys

import psutil

from bench import jobs
from cachebench.files import atomic

SAMPLE = ("sample", "r", "fora", "0")


def test_a_job_is_known_by_its_script_and_what_it_works_on():
    words = ["python", f"{jobs.SCRIPTS}/sample.py", "--run", "r", "--method", "fora", "--budgets", "0.6", "--shard", "0"]
    assert jobs.named(words) == SAMPLE
    assert jobs.named(["bash", "-c", f". {jobs.SCRIPTS}/job.sh; job sample --run r"]) is None
    assert jobs.named(["python", f"{jobs.SCRIPTS}/collect.py", "--out", "o"]) == ("collect", "", "", "")


def test_processes_of_a_job_are_seen_with_their_memory(tmp_path, monkeypatch):
    """A job with a fork: both are its processes, and each page that they share counts once."""
    script = tmp_path / "sample.py"
    script.write_text("import os\nheld = b'x' * 100_000_000\nos.fork()\nprint(flush=True)\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr(jobs, "SCRIPTS", str(tmp_path))
    with subprocess.Popen([sys.executable, script, "--run", "r", "--method", "fora", "--shard", "0"], stdout=-1) as job:
        job.stdout.readline(), job.stdout.readline()
        found = jobs.look(psutil.Process(os.getpid()))[SAMPLE]
        for pid in found:
            os.kill(pid, 9)
    assert len(found) == 2 and 1e8 < sum(of[2] for of in found.values()) < 1.5e8


def test_the_time_between_two_jobs_of_a_name_is_nobodys(monkeypatch):
    watch, now = jobs.Watch(), iter(range(1, 12))
    monkeypatch.setattr(jobs.time, "time", lambda: watch.began + next(now))
    first, second = {SAMPLE: {1: (watch.began + 0.5, 1.0, 1e6)}}, {SAMPLE: {2: (watch.began + 8.5, 2.0, 1e6)}}
    for seen in (first, first, *[{}] * 6, second, second):
        watch.note(seen)
    (line,) = (line for line in watch.lines([]) if line["job"] == "sample")
    assert line["seconds"] == 3.0 and line["processor_seconds"] == 3.0  # 0.5 to 2, and 8.5 to 10


def test_lines_hold_the_most_memory_and_all_processes_and_go_on_from_a_call_before(tmp_path):
    watch = jobs.Watch()
    began = watch.began
    for seen in ({1: (began, 1.0, 3e9)}, {1: (began, 2.0, 1e9), 2: (began + 1, 5.0, 4e9)}, {2: (began + 1, 6.0, 1e9)}):
        watch.note({SAMPLE: seen, ("score", "r", "full", ""): {9: (began, 1.0, 1e9)}})
    atomic.write_csv(tmp_path / "jobs.csv", watch.lines([]))
    before = list(csv.DictReader((tmp_path / "jobs.csv").read_text().splitlines()))
    by_key = {tuple(line[name] for name in jobs.KEY): line for line in before}
    line, whole = by_key[SAMPLE], by_key[jobs.ALL]
    assert (line["peak_memory_mb"], line["processor_seconds"]) == ("5000", "8.0")
    assert (whole["peak_memory_mb"], whole["processor_seconds"]) == ("6000", "9.0")
    again = jobs.Watch()
    again.note({("score", "r", "full", ""): {9: (again.began, 2.5, 2e9)}})
    found = {tuple(line[name] for name in jobs.KEY): line for line in again.lines(before)}
    assert found[SAMPLE] == line and found["score", "r", "full", ""]["peak_memory_mb"] == 2000
    assert found[jobs.ALL]["processor_seconds"] == 11.5 and found[jobs.ALL]["peak_memory_mb"] == 6000
