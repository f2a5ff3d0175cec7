"""What people keep in a folder, without what systems and editors put beside it."""

import os
from pathlib import Path

# Beginnings of such names: hidden files and macOS's sidecars, its part of a zip file, thumbnails of a NAS, bins of disks.
HIDDEN = (".", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")


def hidden(name):
    """Whether a path below a folder or inside a zip file, such as ".ipynb_checkpoints/0.png", is none of its owner's."""
    return any(part.startswith(HIDDEN) for part in Path(name).parts)


def visible(folder):
    """Paths in a folder that are not hidden, by name."""
    return [Path(entry.path) for entry in _entries(folder)]


def files_below(folder, above=()):
    """Yields the paths of the files below a folder, subfolders and links included, in their order. Of links that lead round in
    a circle the first round alone counts."""
    above = (*above, os.path.realpath(folder))
    for entry in _entries(folder):
        if not entry.is_dir():
            yield Path(entry.path)
        elif os.path.realpath(entry.path) not in above:
            yield from files_below(entry.path, above)


def _entries(folder):
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not hidden(entry.name)), key=lambda entry: entry.name)
