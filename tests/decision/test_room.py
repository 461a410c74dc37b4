from __future__ import annotations

import subprocess
import sys

import blemish.decision


def test_the_room_needs_no_torch_and_loads_no_slow_parts_of_scipy() -> None:
    script = (
        "import sys, blemish.decision; print(sorted({'torch', 'sklearn', 'scipy.stats'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_exists_and_has_a_docstring() -> None:
    for name in blemish.decision.__all__:
        public = getattr(blemish.decision, name)
        assert public.__doc__ or name in ("PIXEL_FIGURES", "SCORES"), name
