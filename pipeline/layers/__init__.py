"""Which layer of a network: a linear probe on each hidden state of cached features, as a page."""
