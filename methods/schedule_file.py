"""A schedule from a file in SmoothCache's JSON form, such as `snakemake schedules` exports; the config names the files."""

from pathlib import Path

from cachebench.engine.schedule import Schedule
from cachebench.files.atomic import placed
from cachebench.plugin.method import Method


class ScheduleFile(Method):
    name = "Schedule file"
    reference = "arXiv:2411.10510"
    params = {"path": [""]}  # from the project's folder; without one nothing is reused
    knob = "path"

    def supports(self, spec):
        if not self.path:
            return "No schedule is given: name the files under params.schedule_file.path."

    def schedule(self, spec, state=None):
        if not self.path:
            return Schedule.full(spec)
        return Schedule.from_json(Path(placed(self.path)).read_text(), spec, self.path)
