"""Scaling, pose and tiling of images, each with its inverse."""
