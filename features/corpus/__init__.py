"""A corpus: adapter, survey of its files, manifest, labels, protocol, leaks and card."""
