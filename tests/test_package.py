from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import blemish
from blemish.inspection.detector import Detector

BLOCK_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


def python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_importing_blemish_costs_neither_torch_nor_numpy() -> None:
    heavy = {"torch", "numpy", "PIL", "scipy", "pydantic", "lightning", "rich", "typer"}
    loaded = python("import blemish, sys; print(*{name.split('.')[0] for name in sys.modules})")
    assert "blemish" in loaded.split()
    assert not heavy & set(loaded.split())


MODEL = Path(__file__).parent / "format-1" / "parts"
WITHOUT_TORCH = (
    "errors",
    "observer",
    "interruption",
    "storage",
    "data",
    "preprocessing",
    "decision",
    "recipes",
    "runtime",
    "inspection",
    "evaluation",
    "report",
    "serve",
    "jpeg",
    "cli",
)
NEEDS_TORCH = ("blemish.jpeg.deep", "blemish.jpeg.differentiable_decoder")


def test_rooms_that_run_without_torch() -> None:
    out = python(
        BLOCK_TORCH + "import pkgutil\nfrom importlib import import_module\nimport blemish\n"
        f"rooms, needs = {WITHOUT_TORCH!r}, {NEEDS_TORCH!r}\n"
        "names = [one.name for one in pkgutil.walk_packages(blemish.__path__, 'blemish.', onerror=print)]\n"
        "for name in names:\n"
        "    if name.split('.')[1] in rooms and not name.startswith(needs):\n"
        "        import_module(name)\n"
        "        print(name)\n"
    )
    loaded = set(out.split())
    for name in (
        "blemish.inspection.detector",
        "blemish.inspection.scenes",
        "blemish.inspection.calibration",
        "blemish.evaluation.compare",
        "blemish.jpeg.encoder",
        "blemish.storage.model_folder",
        "blemish.cli.app",
    ):
        assert name in loaded
    assert not [name for name in loaded if name.startswith(NEEDS_TORCH)]


def test_without_torch_a_decision_is_made() -> None:
    out = python(
        BLOCK_TORCH + "import json, numpy as np\n"
        "from blemish.decision import Calibration, Decision\n"
        "from blemish.detectors.contracts import AnomalyMaps\n"
        "from blemish.detectors.scoring import ArrayReader, score_blocks, whole\n"
        "class Bright:\n"
        "    title, takes_absent = 'brightness', False\n"
        "    def window(self, size, rows, columns): return rows, columns\n"
        "    def maps(self, x, *, hidden=()): return AnomalyMaps(x[0], None)\n"
        "reader = ArrayReader(np.full((1, 8, 8), 0.75, np.float32))\n"
        "(found,) = score_blocks(Bright(), reader, [whole(reader)])\n"
        "scores = tuple(np.linspace(0, 0.5, 19))\n"
        "decision = Decision(calibration=Calibration(scores=scores, map_maxima=scores))\n"
        "print(found.maps.anomaly.mean() > decision.threshold, decision.p_value(0.75))\n"
    )
    assert out.split() == ["True", "0.05"]


def test_without_torch_the_error_names_the_line_that_installs_it() -> None:
    out = python(
        BLOCK_TORCH + "import blemish\n"
        f"model = {str(MODEL)!r}\n"
        "for use in (lambda: blemish.fit, lambda: blemish.load(model), lambda: blemish.similarity):\n"
        "    try: use()\n"
        "    except blemish.BlemishError as error: print(type(error).__name__, error)\n"
        "sys.argv = ['blemish', 'fit', 'good', '--out', 'model']\n"
        "from blemish.__main__ import main\n"
        "sys.stderr = sys.stdout\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
    )
    line = "torch is not installed; type in the project's folder: pip install -e '.[train]'"
    fit, load, similarity, *command = out.splitlines()
    assert fit == similarity == f"MissingExtraError {line}"
    assert load == f"MissingExtraError {MODEL}: {line}; or run blemish export where torch is installed"
    assert command == [f"blemish: {line}", "2"]


@pytest.mark.parametrize("asked", [None, "ACTIVE"])
def test_threads_of_the_command_line_sleep_while_they_wait_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if asked:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    out = python(
        "import os, sys\n"
        "sys.argv = ['blemish', '--help']\n"
        "from blemish.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])\n"
    )
    assert out.splitlines()[-1] == f"False {asked or 'PASSIVE'}"


def test_public_names() -> None:
    assert sorted(blemish.__all__) == blemish.__all__ == dir(blemish)
    for name in blemish.__all__:
        assert getattr(blemish, name) is not None
    assert blemish.fit.__module__ == "blemish.training.fit"
    assert blemish.similarity.__name__ == "blemish.similarity"
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = blemish.fitt


def test_former_names_work_for_one_release_and_say_what_replaced_them(detector: Detector, good: Path) -> None:
    with pytest.warns(FutureWarning, match=r"blemish\.Inspector is now blemish\.Detector"):
        assert blemish.Inspector is blemish.Detector
    from blemish import panels

    for name, now in (("inspect_panels", "inspect"), ("extract_features", "extract_features")):
        with pytest.warns(FutureWarning, match=rf"blemish\.panels\.{name} is now blemish\.{now}"):
            assert getattr(panels, name) is getattr(blemish, now)
    found = detector.inspect(good / "0.png")
    with pytest.warns(FutureWarning, match=r"Detector\.level is now Detector\.pixel_threshold"):
        assert detector.level == detector.pixel_threshold
    with pytest.warns(FutureWarning, match=r"Detection\.level is now Detection\.pixel_threshold"):
        assert found.level == found.pixel_threshold
    with pytest.warns(FutureWarning, match=r"Detection\.picture is now Detection\.image"):
        assert (found.picture == found.image).all()
