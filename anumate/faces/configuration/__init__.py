"""A tenant's configuration as one document: `export.py` writes it, `reading.py` reads it, `importing.py` applies it."""
