"""The page of all plots: it needs no network, says what is synthetic, compares revisions and links to the explained cases."""

import re
import shutil
import urllib.parse
from pathlib import Path

import pytest

from tests.conftest import refuses
from tests.report.plot_cases import VEGA_PLOTS
from tests.tools.record_cases import set_source
from tools.dvc_commands import run_dvc_json
from tools.plots_page import SYNTHETIC, banner, link_to_cases, write_page


@pytest.fixture
def in_repository(plots_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository, the working directory."""
    copied = shutil.copytree(plots_repository, tmp_path / "repository")
    monkeypatch.chdir(copied)
    return copied


def test_a_table_without_rows_gives_no_plot_and_no_error(in_repository: Path) -> None:
    table = in_repository / "plots" / "gradcam" / "energy.csv"
    content = table.read_bytes()
    table.write_text("image_id,dx,outcome,energy_ratio\n", encoding="utf-8")
    shown = run_dvc_json("plots", "show", "gradcam_energy")
    table.write_bytes(content)
    assert shown == {"data": {"gradcam_energy": []}}


def test_the_page_needs_no_network_and_says_synthetic(in_repository: Path) -> None:
    set_source(synthetic=True)
    page = write_page(Path("dvc_plots"), []).read_text(encoding="utf-8")
    assert SYNTHETIC in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"']?(https?:)?//", page)
    assert "window.vegaEmbed=" in page
    assert all(f"vegaEmbed('#{name}', spec)" in page for name in VEGA_PLOTS)
    assert "{plot_divs}" not in page


def test_the_page_compares_revisions(in_repository: Path) -> None:
    set_source(synthetic=True)
    page = write_page(Path("dvc_plots"), ["HEAD"]).read_text(encoding="utf-8")
    assert "Revisions compared: HEAD." in page
    assert '"rev": "HEAD"' in page


def test_banner_of_real_and_of_unknown_images(workspace: Path) -> None:
    assert "unknown" in banner()
    set_source(synthetic=False)
    assert banner() == ""


def test_the_page_links_to_the_explained_cases(in_repository: Path) -> None:
    assert link_to_cases(Path("dvc_plots")) == ""
    set_source(synthetic=True)
    index = in_repository / "plots" / "gradcam" / "index.html"
    index.write_text("the cases", encoding="utf-8")
    for folder in (Path("dvc_plots"), Path("else where/deep"), in_repository.parent / "outside"):
        (address,) = re.findall(r'^<p><a href="([^"]*)">Grad-CAM, case by case', link_to_cases(folder))
        assert (folder / urllib.parse.unquote(address)).resolve() == index.resolve()
    page = write_page(Path("dvc_plots"), []).read_text(encoding="utf-8")
    assert '<a href="../plots/gradcam/index.html">' in page
    index.unlink()


def test_the_page_says_that_there_are_no_plots(workspace: Path) -> None:
    (workspace / "dvc_plots").mkdir()
    (workspace / "dvc_plots" / "index.html").write_text("of an earlier run", encoding="utf-8")
    (workspace / ".dvc").mkdir()
    (workspace / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n", encoding="utf-8")
    refuses(r"no plots.*dvc repro", lambda: write_page(Path("dvc_plots"), []))
    assert not (workspace / "dvc_plots" / "index.html").exists()
