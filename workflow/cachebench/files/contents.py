"""What lies at a path, by its content: a file that is changed in place counts, and a folder that is only touched does not."""

import hashlib
from pathlib import Path

from cachebench.files import downloads
from cachebench.files.folders import files_below


def listing(path):
    """Short hash of the names, sizes and times of what lies at a path: quick, and another one after every change in place."""
    path = Path(path)
    files = sorted(f for f in files_below(path) if f.is_file()) if path.is_dir() else [path]
    stats = [(str(file.relative_to(path)), file.stat()) for file in files]
    said = "".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}\n" for name, stat in stats)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def digest(path, known=None):
    """sha256 of the content at a path. `known` is a mapping that holds what `seen` once said of it: while the listing is the
    same, nothing is read."""
    if known and known.get("listing") == listing(path):
        return known["content"]
    return downloads.digest(path)


def seen(path):
    """{"listing", "content"} of what lies at a path now."""
    return {"listing": listing(path), "content": downloads.digest(path)}
