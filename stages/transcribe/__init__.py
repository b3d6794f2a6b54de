"""Stage `transcribe`: recognised words of a corpus."""
