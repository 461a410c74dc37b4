"""Export of fitted models to runtimes without torch; :func:`~blemish.export.export_model.export_model` does it."""
