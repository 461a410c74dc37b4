"""Pictures: reading, collections, splits, fingerprints, tiles, and files written whole."""

from blemish.images.collections import (
    Item,
    Labelled,
    find_pictures,
    read_labelled,
    read_mask,
)
from blemish.images.fingerprint import Fingerprint, Spread, fingerprint
from blemish.images.modalities import (
    MODALITIES_FILE,
    Modality,
    Scene,
    find_scenes,
    holds_scenes,
)
from blemish.images.posing import Crop, find_pose, plan_crop
from blemish.images.preparing import Placed, Preparation
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
from blemish.images.windows import Kept, Windows, open_windows
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
    "MODALITIES_FILE",
    "SUFFIXES",
    "Blender",
    "Crop",
    "Fingerprint",
    "Item",
    "Kept",
    "Kind",
    "Labelled",
    "Modality",
    "Picture",
    "PictureInfo",
    "Placed",
    "Preparation",
    "Scene",
    "Split",
    "SplitCounts",
    "Spread",
    "TilePlan",
    "Windows",
    "atomic_path",
    "find_pictures",
    "find_pose",
    "find_scenes",
    "fingerprint",
    "holds_scenes",
    "open_windows",
    "picture_info",
    "plan_crop",
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
