"""How rest becomes a gradient: stencils over nudges, learning rules, estimators, and autograd."""
