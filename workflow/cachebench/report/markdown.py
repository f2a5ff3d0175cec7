"""Markdown: text that cannot break a table, and tables."""

import html

RULES = {"-": "---", "l": ":--", "r": "--:"}


def escape(text):
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


def table(head, rows, align=""):
    """A table of cells that are Markdown already; `align` has a letter of RULES a column, or none."""
    rule = [RULES[letter] for letter in align or "-" * len(head)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (head, rule, *rows))
