"""Anomaly models: reconstruction, memory bank, ensemble, and the one scoring path."""
