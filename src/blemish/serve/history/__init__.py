"""History of decisions: stored durably, searched quickly, exported, backed up, and cleared of old images by rule."""

from blemish.serve.history.history import EVERYTHING, History
from blemish.serve.history.kept_images import IMAGES, KeepRule, KeptImages
from blemish.serve.history.outbox import OutboxState, Wish
from blemish.serve.history.retention import Removed, RetentionRule, prune
from blemish.serve.history.selection import HistoryFilter
from blemish.serve.history.views import ScorePoint
from blemish.serve.history.what_if import WhatIf

__all__ = [
    "EVERYTHING",
    "IMAGES",
    "History",
    "HistoryFilter",
    "KeepRule",
    "KeptImages",
    "OutboxState",
    "Removed",
    "RetentionRule",
    "ScorePoint",
    "WhatIf",
    "Wish",
    "prune",
]
