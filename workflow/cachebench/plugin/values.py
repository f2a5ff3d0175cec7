"""What a config's values of parameters and of other numbers mean. No torch here."""

import math
from numbers import Integral, Real


def number(given):
    """The number that a text means, 0.001 for "1e-3", which YAML reads as text; whole ones are int, 12 for 12.0 too. What is no
    finite number stays as it is."""
    try:
        value = float(given) if isinstance(given, str) else given
    except ValueError:
        return given
    if not is_finite(value):
        return given
    return int(value) if value == int(value) else value


def is_finite(given):
    """Whether it is a number, neither infinite nor NaN."""
    return isinstance(given, Real) and not isinstance(given, bool) and math.isfinite(given)


def meant(cls, name, given):
    """What a value of the parameter `name` means to the Method `cls`: of the type of its own values, where these are all whole
    numbers, numbers, truths or text. ValueError "name: why" if it is of another type, or outside the method's `ranges`."""
    values = cls.params[name]
    for kind, called in ((bool, "true or false"), (str, "text, in quotes")):
        if all(isinstance(value, kind) for value in values):
            if not isinstance(given, kind):
                raise ValueError(f"{name}: {given!r} is not {called}")
            return given
    if not all(is_finite(value) for value in values):
        return given
    whole, value = all(isinstance(value, Integral) for value in values), number(given)
    if not is_finite(value) or (whole and not isinstance(value, int)):
        raise ValueError(f"{name}: {given!r} is not a {'whole' if whole else 'finite'} number, as {values[0]} is")
    lowest, highest = cls.ranges.get(name, (-math.inf, math.inf))
    if not lowest <= value <= highest:
        raise ValueError(f"{name}: {given!r} is outside {lowest} to {highest}")
    return value if whole else float(value)


def among(name, value, known):
    """ValueError that names the values that there are, `known`, if that of a parameter is none of them."""
    if value not in known:
        raise ValueError(f"{name}: unknown {value!r}; allowed: {', '.join(map(str, known))}")


def allowed(name, value, known):
    """What the value of a parameter stands for in the mapping `known`. ValueError as `among`."""
    among(name, value, known)
    return known[value]
