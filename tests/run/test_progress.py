"""The line that a run prints for every job that has ended."""

import logging

import pytest
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from cachebench.run import progress


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min")]
)
def test_a_span_is_said_in_its_unit(seconds, said):
    assert progress.minutes(seconds) == said


def test_the_time_left_is_that_of_the_jobs_before():
    assert progress.line(30, 120, 300.0).endswith(" [#####...............] 30 of 120 jobs done, about 15 min left")
    assert progress.line(8, 120, 4.0).endswith("] 8 of 120 jobs done")  # too soon to tell
    assert progress.line(120, 120, 300.0).endswith(" [####################] 120 of 120 jobs done")


def test_a_job_is_one_line_and_everything_else_stays(caplog):
    """The events are Snakemake's own, so that one of another name would be seen."""
    started, ended, far = LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS
    told = [("Execute 2 jobs...", started), ("Select jobs to execute...", None), ("Finished jobid: 3", ended), (None, far)]
    told += [("Error in rule fit", LogEvent.JOB_ERROR), ("a warning", None)]
    logger.addFilter(only := progress.Progress())
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            for message, event in told:
                logger.info(message, extra={"event": event, "done": 1, "total": 2})
    finally:
        logger.removeHandler(caplog.handler)
        logger.removeFilter(only)
    first, *others = dict.fromkeys(caplog.messages)
    assert first.endswith("] 1 of 2 jobs done") and others == ["Error in rule fit", "a warning"]
