"""Images and scenes: reading in memory and by windows, data-set layouts, splits, fingerprints."""
