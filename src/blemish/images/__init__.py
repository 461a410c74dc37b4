"""Pictures: reading, collections, splits, fingerprints, tiles, and files written whole."""

from blemish.images.collections import (
    Item,
    Labelled,
    find_pictures,
    read_labelled,
    read_mask,
)
from blemish.images.fingerprint import Fingerprint, Spread, fingerprint
from blemish.images.preparing import Preparation
from blemish.images.reading import (
    SUFFIXES,
    Kind,
    Picture,
    PictureInfo,
    picture_info,
    read_picture,
    resize,
    select_channels,
)
from blemish.images.splits import Split, SplitCounts, plan_split, split_good
from blemish.images.tiles import Blender, TilePlan, smallest_side
from blemish.images.writing import (
    atomic_path,
    read_map,
    write_bytes,
    write_json,
    write_map,
    write_picture,
    write_text,
)

__all__ = [
    "SUFFIXES",
    "Blender",
    "Fingerprint",
    "Item",
    "Kind",
    "Labelled",
    "Picture",
    "PictureInfo",
    "Preparation",
    "Split",
    "SplitCounts",
    "Spread",
    "TilePlan",
    "atomic_path",
    "find_pictures",
    "fingerprint",
    "picture_info",
    "plan_split",
    "read_labelled",
    "read_map",
    "read_mask",
    "read_picture",
    "resize",
    "select_channels",
    "smallest_side",
    "split_good",
    "write_bytes",
    "write_json",
    "write_map",
    "write_picture",
    "write_text",
]
