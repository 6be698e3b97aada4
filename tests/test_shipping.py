"""What is shipped: the contents of the wheel and of the source distribution, and their metadata."""

from __future__ import annotations

import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import mcgrad

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, as the build's own hooks make them."""
    build = pytest.importorskip("hatchling.build")
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return folder / build.build_wheel(str(folder)), folder / build.build_sdist(str(folder))


def test_the_wheel_is_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "mcgrad").rglob("*.py*") if path.suffix in (".py", ".pyi")
    }
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == modules | {"mcgrad/py.typed", "mcgrad/diagnostics/pictures.mplstyle"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_metadata_are_complete(built):
    with zipfile.ZipFile(built[0]) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "mcgrad-jax" and metadata["Version"] == mcgrad.__version__
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_payload().startswith("# mcgrad")
    assert {"demo", "docs", "test"} <= set(metadata.get_all("Provides-Extra"))


def test_the_source_has_what_the_tests_and_the_book_need(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "tests/conftest.py",
        "notebooks/conf.py",
        "benchmarks/RESULTS.md",
    } <= names
    assert not [name for name in names if "_build" in name or name.endswith(".pyc")]
