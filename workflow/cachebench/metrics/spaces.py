"""Names of what there is once more in the features of each further extractor: `fd(NAME)` is to NAME what `fd` is to the first.

The first extractor, whose features decide, is the space ""."""

import re

FORM = re.compile(r"(?:fd|features)\(([^()]+)\)")  # of a column of the results, and of a tensor of samples


def named(key, space):
    """What `key` is called in a space."""
    return f"{key}({space})" if space else key


def further(keys):
    """The further spaces, in order, that columns of the results or tensors of samples are of."""
    return list(dict.fromkeys(form[1] for form in map(FORM.fullmatch, keys) if form))
