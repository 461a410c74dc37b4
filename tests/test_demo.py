from __future__ import annotations

from pathlib import Path

import pytest

from blemish.demo import run_demo
from blemish.errors import FileError, Stopped, UsageError

SMALL = {"good": 8, "test_good": 3, "per_blemish": 1, "size": 64}


def test_demo_ends_in_a_report_and_is_not_repeated(tmp_path: Path, tiny: list[str], recorder: type) -> None:
    settings = (*tiny, "threshold.false_reject_rate=0.25")
    out = tmp_path / "demo"
    with pytest.raises(Stopped):
        run_demo(out, family="checkerboard", settings=settings, observer=recorder(10), **SMALL)
    result = run_demo(out, family="checkerboard", settings=settings, **SMALL)
    page = result.report.read_text(encoding="utf-8")
    assert result.report == out / "found" / "checkerboard" / "report.html"
    assert "ROC of pictures" in page
    assert set(result.evaluation.image) == {"all", "stroke", "dot"}
    assert result.evaluation.image["all"].good == 3
    assert not list((out / "pictures").glob(".*"))

    told = recorder()
    again = run_demo(out, family="checkerboard", settings=settings, observer=told, **SMALL)
    assert [stage.split()[0] for stage in told.stages] == ["Evaluating"]
    assert again.evaluation.image == result.evaluation.image
    with pytest.raises(UsageError, match="another seed; choose another --out"):
        run_demo(out, family="checkerboard", seed=1, settings=settings, **SMALL)
    with pytest.raises(UsageError, match=r"fitted with encoder\.latent 8, not 9; choose another --out"):
        run_demo(out, family="checkerboard", settings=(*settings, "encoder.latent=9"), **SMALL)


def test_half_drawn_pictures_are_drawn_again(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.images import generated

    real = generated._write_png
    drawn: list[Path] = []

    def interrupted(path: Path, picture: object) -> None:
        drawn.append(path)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        real(path, picture)  # type: ignore[arg-type]

    settings = (*tiny, "threshold.false_reject_rate=0.25")
    with monkeypatch.context() as patch:
        patch.setattr(generated, "_write_png", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, family="checkerboard", settings=settings, **SMALL)
    assert not (tmp_path / "pictures" / "checkerboard").exists()
    assert run_demo(tmp_path, family="checkerboard", settings=settings, **SMALL).report.exists()


def test_what_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="weave, checkerboard, part"):
        run_demo(tmp_path, family="cloth")
    with pytest.raises(UsageError, match="did you mean 'weave'"):
        run_demo(tmp_path, family="weaves")
    with pytest.raises(FileError, match="choose another --out"):
        run_demo("a" * 300)
    mine = tmp_path / "pictures" / "weave" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(FileError, match="choose another --out"):
        run_demo(tmp_path, **SMALL)
    assert mine.exists()


def test_a_folder_that_cannot_take_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(FileError, match=r"weave: cannot be made \(Permission denied\); choose another --out"):
        run_demo(tmp_path, **SMALL)
