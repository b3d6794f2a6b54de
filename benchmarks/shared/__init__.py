"""Parts of several benchmarks: inputs, networks, contenders, rounds."""
