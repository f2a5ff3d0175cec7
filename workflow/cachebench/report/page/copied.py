"""What the panel of a row has ready to copy: the command that makes it again, lines of config, BibTeX. No torch here."""

import re
import shlex
from pathlib import Path

import yaml

from cachebench.run.folder import Folder


def command(files, row, entry):
    """The shell command that makes a row's samples and its scores again; `entry` is what the matcher says of it. A job keeps
    samples that are made of the same, so those that are there are set aside, where they can be compared with the new ones."""
    here = Folder(f"results/{files.cfg['name']}")
    samples, aside = Path(here.shard(row.run, row.method, row.budget, 0)).parent, ""
    again = [here.sampled(row.run, row.method, shard) for shard in range(files.count_shards(row.method))]
    if "params" in entry and not entry.get("status"):
        aside = f"mv {shlex.quote(str(samples))} {shlex.quote(str(samples))}-$(date +%s); "
    elif entry.get("status") != "missing":
        again = [here.settings(row.run, row.method)]
    else:
        again = []
    words = ["snakemake", here.scores(row.run, row.method), *(["--forcerun", *again] if again else [])]
    return aside + shlex.join([*words, "--cores", "all", "--configfile", here.file("config.yaml")])


def lines_for(row, entry):
    """The lines of config that give a row of the nearest setting, whatever it costs."""
    setting = {"budget": round(entry["achieved"], 3), row.method: entry["params"]}
    return yaml.safe_dump({"runs": {row.run: {"settings": [setting]}}}, sort_keys=False)


def cite(reference):
    """BibTeX of what a method's `reference` names, an entry each, with what it says: of a paper its number at arXiv, of
    anything else its words, with the address and the year that stand among them."""
    sources = filter(None, map(str.strip, re.split(r"[;,](?![^(]*\))", reference)))
    return "\n".join(map(entry, dict.fromkeys(sources)))


def entry(source):
    """The BibTeX entry of one source."""
    if paper := re.fullmatch(r"arXiv:(\d{4}\.\d{4,5}|[a-z-]+/\d{7})", source):
        key = f"arxiv{paper[1]}"
        said = {"eprint": paper[1], "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{paper[1]}"}
    else:
        url, year = re.search(r"https?://\S+", source), re.search(r"\b(?:19|20)\d\d\b", source)
        title = " ".join(source.replace(url[0] if url else "", "").split())
        key = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower()
        said = {"title": title, "year": year and year[0], "url": url and url[0]}
    return f"@misc{{{key}, {', '.join(f'{name} = {{{text}}}' for name, text in said.items() if text)}}}"
