"""What a run prints by default: a bar and a line for each job that has ended, with the time that is left. No torch here."""

import logging
import time

LEFT_OUT = ("job_started", "job_finished")  # Snakemake's events that the line stands for
SELECTS = "Select jobs to execute..."
BAR = 20  # characters
SOON = 60  # seconds, before which the jobs tell nothing of those after them: the first are downloads and copies


class Progress(logging.Filter):
    """Of the records of Snakemake's logger, turns those of the progress into a line with the time left, and drops what else
    is said of every job."""

    def __init__(self):
        super().__init__()
        self.began = time.monotonic()

    def filter(self, record):
        event = getattr(record, "event", None)
        if event == "progress":
            record.event, record.msg = None, line(record.done, record.total, time.monotonic() - self.began)
        return event not in LEFT_OUT and record.msg != SELECTS


def line(done, total, seconds):
    """How far a run has come after so many seconds, and after SOON what is left if all jobs take as long as those before."""
    told = f"{time.strftime('%H:%M')} [{'#' * (BAR * done // total):.<{BAR}}] {done} of {total} jobs done"
    left = seconds * (total - done) / done
    return told if done == total or seconds < SOON else f"{told}, about {minutes(left)} left"


def minutes(seconds):
    """A span of time as it is said: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, left = divmod(round(seconds / 60), 60)
    return f"{hours} h {left} min" if hours else f"{left} min"
