"""Find the codecs to compare: the baselines, the encoder of this package, and trained models."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from blemish.errors import UsageError, nearest
from blemish.jpeg.benchmark.baselines import BASELINES, find_baselines
from blemish.jpeg.benchmark.codecs import BlemishCodec, Codec, learned_codec
from blemish.jpeg.quality import Unavailable


def find_codecs(names: Iterable[str] | None = None) -> tuple[list[Codec], list[Unavailable]]:
    """Find the codecs to compare, both Pillow baselines first, and those that cannot run here.

    Parameters
    ----------
    names: of codecs beside the Pillow baselines, or folders that ``blemish jpeg fit`` made; None takes every
        codec with a name. Of two folders with one recipe, the second is named after recipe and folder.

    Raises
    ------
    UsageError
        An unknown name, a codec that cannot run here, or folders with one name.
    ModelError
        A folder that is no such model.
    """
    from blemish.jpeg.distortion import TUNES

    found, missing = find_baselines()
    found += [BlemishCodec(tune) for tune in TUNES]
    if names is None:
        return found, missing
    by_name = {encoder.name: encoder for encoder in found}
    chosen: dict[str, Codec] = {baseline.name: baseline for baseline in BASELINES}
    for name in names:
        if name not in by_name and (os.sep in name or os.path.isdir(name)):
            model = learned_codec(name)
            if model.name in chosen:
                model = replace(model, name=f"{model.name} ({Path(name).resolve().name})")
            if model.name in chosen:
                raise UsageError(f"{name}: another encoder is called {model.name} too; rename the folder")
            chosen[model.name] = model
            continue
        absent = next((one for one in missing if one.name == name), None)
        if absent is not None:
            raise UsageError(f"{name} cannot run here; {absent.remedy}")
        if name not in by_name:
            raise UsageError(f"unknown encoder '{name}'; {nearest(name, by_name)}")
        chosen[name] = by_name[name]
    return list(chosen.values()), []
