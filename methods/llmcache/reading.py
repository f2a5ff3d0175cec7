"""Runs a trajectory with LLMCache's bank: a sample whose fingerprint hits skips the first blocks."""

import random

import torch

from cachebench.engine.device import send
from cachebench.engine.doors import Session
from cachebench.plugin.deciding import forced

from .layers import depths, stored


class BankSession(Session):
    """`depths` {evaluation: [rows]} says of every evaluation how many blocks the bank stood in for."""

    def __init__(self, method, spec, bank):
        self.method, self.halves, self.bank, self.live = method, spec.rows, bank, method.bank == "live"
        self.layers, self.ends, self.forced = stored(method, spec), depths(method, spec), forced(spec, last=0)
        self.thresholds = torch.tensor([method.threshold + method.rise * k for k in range(len(self.ends))])
        self.trajectories, self.depths = 0, {}

    def reset(self):
        self.labels = self.depth = None

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.x, self.y = evaluation, x, y

    def trunk(self, h, run):
        if self.labels is None:
            self.labels, self.trajectories, self.depths = self.read(self.y), self.trajectories + 1, {}
        self.depth, self.outs, self.checked = [0] * len(h), [], []
        if self.forced[self.evaluation]:
            return run(h)
        self.entered, hits = h, self.look_up()
        self.values = self.of_entries(hits, h)
        out = run(h)
        if self.live:
            self.learn(hits)
        return out

    def look_up(self):
        """{row: what the bank knows its hit by}; sets `depth` [rows], of those that are verified 0. The one wait."""
        images = len(self.labels) // self.halves
        similarity, known = self.bank.look_up(self.evaluation, self.x[:images], self.labels)
        self.spend(self.bank.macs)
        if similarity.shape[1] > 1:
            similarity = similarity[:, [self.layers.index(end - 1) for end in self.ends]]
        ends, thresholds = (send(values, similarity.device) for values in (torch.tensor(self.ends), self.thresholds))
        depth = (ends * (similarity >= thresholds.to(similarity.dtype))).amax(1)  # (rows); 0: no hit
        if self.method.decision == "sample":
            depth = depth.unflatten(0, (self.halves, -1)).amin(0).repeat(self.halves)
        self.depth, known = self.read(torch.stack([depth, known]))
        self.depths[self.evaluation] = list(self.depth)
        hits = {row: known[row] for row, blocks in enumerate(self.depth) if blocks}
        if self.live and self.method.verify:
            drawn = random.Random(f"llmcache {self.trajectories} {self.evaluation}")
            verified = {image for image in range(images) if drawn.random() < self.method.verify}
            self.checked = [(row, self.depth[row]) for row in hits if row % images in verified]
            for row, _ in self.checked:
                self.depth[row] = 0
        return hits

    def of_entries(self, hits, h):
        """{row: values [layers, tokens, width]} of the entries that are hit."""
        values = {row: self.bank.values(self.evaluation, self.labels[row], known) for row, known in hits.items()}
        return {row: send(value.to(h.dtype), h.device) for row, value in values.items()}

    def block(self, i, h, run):
        skip = [row for row, depth in enumerate(self.depth) if depth > i]
        run_rows = [row for row, depth in enumerate(self.depth) if depth <= i]
        out = h
        if run_rows:
            rows = send(torch.tensor(run_rows), h.device)
            out = h.index_copy(0, rows, run.rows(rows)(h[rows])) if skip else run(h)
        if skip and i in self.layers:
            out = out.index_copy(0, send(torch.tensor(skip), h.device), self.stand_in(i, skip))
        if self.live and i in self.layers and not self.forced[self.evaluation]:
            self.outs.append(out)
        return out

    def stand_in(self, i, rows):
        """The stream behind block i of these rows: [rows, tokens, width]."""
        value = torch.stack([self.values[row][self.layers.index(i)] for row in rows])
        return self.entered[send(torch.tensor(rows), value.device)] + value if self.method.value == "residual" else value

    def learn(self, hits):
        """Drops entries that verification finds stale, and takes in what was computed without any stand-in."""
        outs = torch.stack(self.outs, dim=1)  # (rows, layers, tokens, width)
        outs = outs - self.entered[:, None] if self.method.value == "residual" else outs
        for row, depth in self.checked:
            k = self.layers.index(depth - 1)
            error = (self.values[row][k] - outs[row, k]).norm() / outs[row, k].norm()
            if not self.read(error) <= self.method.stale:
                self.bank.drop(self.evaluation, self.labels[row], hits[row])
        for row, depth in enumerate(self.depth):
            if not depth:
                key = self.bank.fingerprints[row % len(self.bank.fingerprints)]
                self.bank.insert(self.evaluation, self.labels[row], key, outs[row].clone())
