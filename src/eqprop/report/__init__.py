"""Pages about runs: HTML files that need nothing else, to look at, to print and to send to others.

>>> from eqprop.report import compare, report
>>> report("runs/digits")
>>> compare(["runs/one", "runs/two"], "compare.html")
"""

from eqprop.report.making import compare, report

__all__ = ["compare", "report"]
