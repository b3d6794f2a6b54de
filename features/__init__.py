"""Raw media to arrays: manifests, audio, backbones and the HDF5 cache."""
