"""A line of validity.csv in words, for the page and the documentation. No torch here."""

import csv

from cachebench.judge.validity import NO, QUESTIONS, SEEN, UNKNOWN, YES

WORDS = {
    "fd_ranks": {
        YES: "FD ranks here: it rises with fewer steps at every budget",
        NO: "FD does not rank here: it does not rise with fewer steps beyond doubt at every budget",
        UNKNOWN: "Whether FD ranks here was not measured",
    },
    "random_is_worse": {
        YES: "A random choice is worse than the full run and than fewer steps",
        NO: "A random choice is not always worse than the full run and than fewer steps",
        UNKNOWN: "A random choice was not compared",
    },
    "blocks_tie": {
        YES: "A second block of seeds of the full run ties with the first",
        NO: "A second block of seeds of the full run does not tie with the first",
        UNKNOWN: "Whether a second block of seeds ties with the first was not measured",
    },
    "none_below_full": {
        YES: "No row has an FD below the full run's beyond doubt",
        NO: "Rows marked below full have a lower FD than the full run, so FD does not measure fidelity there",
        UNKNOWN: "No row's FD was compared with the full run's",
    },
}


def read(path):
    """The lines of validity.csv, [{column: text}]."""
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def words(line):
    """What a line says, in short sentences: of the numbers those of the first question and of what can be seen, and why an
    answer is missing. validity.csv has the rest."""
    shown = {key: line[f"{key}_by"] for key in QUESTIONS if key == QUESTIONS[0] or line[key] == UNKNOWN}
    said = [(WORDS[key][line[key]], shown.get(key)) for key in QUESTIONS]
    small = "The smallest difference to the full run that can be seen"
    said.append((f"{small} was not measured" if line[SEEN] == UNKNOWN else f"{small}: {line[SEEN]}", line[f"{SEEN}_by"]))
    return " ".join(f"{text} ({by})." if by else f"{text}." for text, by in said)
