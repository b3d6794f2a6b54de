"""Arrays to results: parameters, fusion models, training, metrics and reports."""

from features.process.interrupts import listen

# First of all, since importing the rest takes seconds in which Ctrl-C may come.
listen(__name__, {"": "what was finished is kept; run the same command again"}, script="heronry")
