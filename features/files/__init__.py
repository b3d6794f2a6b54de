"""Files: hashes, opening, atomic writing, and the text formats that tables and records take."""
