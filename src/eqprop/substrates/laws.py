"""What the docstrings of faults say: the law of each, and its remedy."""

from __future__ import annotations

import inspect
import re

from eqprop.energy.substrate import Substrate


def told(fault: type[Substrate], title: str) -> str:
    """What the docstring of a class, or of its nearest base that says it, has under ``title:``; else empty.

    On one line, without the last full stop.
    """
    for each in fault.__mro__:
        text = inspect.cleandoc(vars(each).get("__doc__") or "")
        if found := re.search(rf"^{title}: (.*?)(?=^\w+:|\Z)", text, re.M | re.S):
            return " ".join(found[1].split()).rstrip(".").replace("``", "`")
    return ""
