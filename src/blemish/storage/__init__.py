"""Files on disk: atomic writing, run folders, record logs, tiled arrays, model folders."""
