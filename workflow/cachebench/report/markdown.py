"""Markdown: text that cannot break a table, and tables."""

import html

RULES = {"-": "---", "l": ":--", "r": "--:"}


def one_line(text):
    """`text` with single spaces for its white space, line ends too."""
    return " ".join(text.split())


def escape(text):
    return html.escape(one_line(text), quote=False).replace("|", "\\|").replace("*", "\\*")


def table(head, rows, align=""):
    """A table of cells that are Markdown already; `align` has a letter of RULES a column, or none."""
    rule = [RULES[letter] for letter in align or "-" * len(head)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (head, rule, *rows))
