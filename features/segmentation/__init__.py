"""Utterances of long recordings: by voice activity, or from annotations in files of others."""
