"""The detector object, inspection of folders and scenes, extraction of features."""
