"""The report of a run that learns more than classes: record, numbers, page."""
