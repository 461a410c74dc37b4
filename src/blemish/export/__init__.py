"""Export of fitted models to runtimes without torch."""
