"""Does the tree keep the house rules: exports, sizes, imports, fixtures, no private paths?"""

from __future__ import annotations

import doctest
import hashlib
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import analyzer

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
MODULES = [
    "analyzer",
    *sorted(
        module.name
        for module in pkgutil.walk_packages(analyzer.__path__, "analyzer.")
        if not module.name.endswith("__main__")
    ),
]
LONGEST_MODULE = 400
MOST_FIXTURE_BYTES = 14 * 1024 * 1024
# Libraries that take a good part of a second to import.
HEAVY = ("numba", "numpy", "perfetto", "polars", "pyarrow")
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
# Spelt so that the patterns do not find themselves.
PRIVATE_PATH = re.compile(r"(?<![\w.*/~-])/(?:home|root|Users|work|workspaces?)/\w")
REGISTRY = re.compile(
    r"\bpypi\.(?:org|python)|pythonhosted\.org|index[-]url|npmjs\.(?:org|com)|registry\.yarn"
)


def tracked_files() -> list[Path]:
    """Return what git tracks; skips the test outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# Constants, then classes, then functions, as ruff's RUF022 puts them.
def export_order(name: str) -> tuple[int, str]:
    rank = 0 if len(name) > 1 and name.isupper() else 1 if name[0].isupper() else 2
    return rank, name


@pytest.mark.parametrize("name", MODULES)
def test_exports_are_sorted_and_resolve(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert list(exported) == sorted(set(exported), key=export_order)
    assert [one for one in exported if not hasattr(module, one)] == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("pattern", [PRIVATE_PATH, REGISTRY], ids=["private path", "registry"])
def test_no_tracked_file_names_a_private_place(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}"
            for hit in pattern.finditer(text)
        ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (PRIVATE_PATH, "see /" + "home/someone/trace.dat"),
        (PRIVATE_PATH, '"/' + 'work/main"'),
        (REGISTRY, "https://pypi." + "org/simple"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_no_lock_file_is_tracked() -> None:
    locks = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "package-lock.json"}
    assert [path.name for path in tracked_files() if path.name in locks] == []


def test_no_module_is_longer_than_the_house_allows() -> None:
    folders = ("analyzer", "bench", "fixtures", "tests")
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: size for name, size in sizes.items() if size > LONGEST_MODULE} == {}


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LINT_IMPORTS, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_command_line_loads_no_heavy_library() -> None:
    code = f"import sys, analyzer.cli; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_package_data_are_toml_and_nothing_else() -> None:
    for folder in ("placements", "costs"):
        names = [path.name for path in (ROOT / "analyzer" / folder).iterdir()]
        assert names, folder
        assert [name for name in names if not name.endswith(".toml")] == []


def test_fixtures_stay_small() -> None:
    if not FIXTURES.is_dir():
        pytest.skip("no fixtures yet")
    sizes = [path.stat().st_size for path in tracked_files() if path.is_relative_to(FIXTURES)]
    assert sum(sizes) <= MOST_FIXTURE_BYTES


# manifest.toml: one [[file]] a recording, `name` as it lies in fixtures/, `sha256` of those bytes.
def test_fixtures_are_the_files_of_the_manifest() -> None:
    path = FIXTURES / "manifest.toml"
    if not path.exists():
        pytest.skip("no fixtures/manifest.toml yet")
    declared = {row["name"]: row["sha256"] for row in tomllib.loads(path.read_text())["file"]}
    actual = {
        name: hashlib.sha256((FIXTURES / name).read_bytes()).hexdigest()
        for name in declared
        if (FIXTURES / name).is_file()
    }
    assert actual == declared
    recordings = {str(path.relative_to(FIXTURES)) for path in FIXTURES.rglob("*.zst")}
    assert recordings <= set(declared), "a recording stands beside the manifest, not in it"
