"""Inception scores (arXiv:1606.03498) and class accuracy of an extractor's logits, with every leave-one-group-out value."""

import numpy as np
import torch

from cachebench.metrics.intervals import partition


def accuracy(logits, labels, parts):
    """The share of samples whose label (one-hot, [n, classes]) is the class of the largest logit, [1 + len(parts)]."""
    right = labels.gather(1, logits.argmax(1, keepdim=True)).double()[:, 0]
    counts = np.array([len(right), *(len(right) - (part.stop - part.start) for part in parts)])
    hits = np.array([right.sum(), *(right.sum() - right[part].sum() for part in parts)])
    with np.errstate(invalid="ignore"):
        return hits / counts


def score(logits, parts):
    """exp of the mean KL from a sample's classes to the mean classes, one split, [1 + len(parts)]."""
    p, log_p = logits.double().softmax(1), logits.double().log_softmax(1)
    plogp = (p * log_p).sum(1)
    rows = [(part.stop - part.start, p[part].sum(0), plogp[part].sum()) for part in parts]
    whole = (len(p), p.sum(0), plogp.sum())
    out = []
    for group in ((0, 0, 0), *rows):
        n, total, certainty = (a - b for a, b in zip(whole, group, strict=True))
        mean = (total / n).clamp(min=0) if n else total
        out.append(float((certainty / n - torch.xlogy(mean, mean).sum()).exp()) if n else np.nan)
    return np.array(out)


def split_score(logits, parts, splits=10):
    """The mean inception score of consecutive splits, [1 + len(parts)]; a group leaves the splits that it lies in."""
    scores = []
    for rows in partition(len(logits), splits):
        size = rows.stop - rows.start
        within = [slice(*(min(max(end - rows.start, 0), size) for end in (part.start, part.stop))) for part in parts]
        scores.append(score(logits[rows], within))
    there = np.isfinite(scores)  # a split that has left as a whole has no score
    with np.errstate(invalid="ignore"):
        return np.where(there, scores, 0).sum(axis=0) / there.sum(axis=0)
