"""Similarity and distance of two batches of images: one file per measure, each with a map, a mean and a module."""

from __future__ import annotations

from blemish.similarity.features import FeatureDistance, PerceptualDistance
from blemish.similarity.measure import Measure
from blemish.similarity.ms_ssim import MSSSIM, ms_ssim, ms_ssim_map
from blemish.similarity.msgms import MSGMS, msgms, msgms_map
from blemish.similarity.pixel import L1, MSE, l1, l1_map, mse, mse_map
from blemish.similarity.ssim import SSIM, LogSSIM, SSIMParts, log_ssim, ssim, ssim_map, ssim_parts

MEASURES: dict[str, type[Measure]] = {
    "mse": MSE,
    "l1": L1,
    "ssim": SSIM,
    "log-ssim": LogSSIM,
    "ms-ssim": MSSSIM,
    "msgms": MSGMS,
    "feature-matching": FeatureDistance,
    "perceptual": PerceptualDistance,
}

__all__ = [
    "L1",
    "MEASURES",
    "MSE",
    "MSGMS",
    "MSSSIM",
    "SSIM",
    "FeatureDistance",
    "LogSSIM",
    "Measure",
    "PerceptualDistance",
    "SSIMParts",
    "l1",
    "l1_map",
    "log_ssim",
    "ms_ssim",
    "ms_ssim_map",
    "mse",
    "mse_map",
    "msgms",
    "msgms_map",
    "ssim",
    "ssim_map",
    "ssim_parts",
]
