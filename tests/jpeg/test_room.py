from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


def run(code: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_only_networks_and_the_differentiable_decoder_need_torch() -> None:
    refused = run(
        "import importlib, pkgutil\n"
        "import blemish.jpeg\n"
        "for module in pkgutil.walk_packages(blemish.jpeg.__path__, 'blemish.jpeg.'):\n"
        "    try: importlib.import_module(module.name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        assert error.name == 'torch', error\n"
        "        print(module.name)\n"
    )
    assert "blemish.jpeg.differentiable_decoder" in refused
    assert {name for name in refused if not name.startswith("blemish.jpeg.deep.")} == {
        "blemish.jpeg.differentiable_decoder"
    }


def test_an_image_is_encoded_and_measured_without_torch() -> None:
    out = run(
        "import numpy as np\n"
        "from blemish.jpeg import Encoder\n"
        "from blemish.jpeg.quality import measure\n"
        "from blemish.jpeg.source_image import decode\n"
        "image = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))\n"
        "decoded = decode(Encoder().encode(image, quality=90).data)\n"
        "print(measure(image, decoded, ['mse'])['mse'] < 20, 'torch' in sys.modules)\n"
    )
    assert out == ["True", "False"]
