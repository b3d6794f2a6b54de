"""Speech recognition: the words of recordings by any Whisper checkpoint, and their files."""
