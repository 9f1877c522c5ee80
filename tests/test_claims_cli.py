"""Does `analyzer claims` print its verdicts, take thresholds, and refuse what it cannot take?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analyzer.pipeline import IngestOptions, ingest
from tests.conftest import ROOT, run_command


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("cli") / "x.vpmu"
    path = ROOT / "fixtures" / "k73m-migrate.pftrace.zst"
    ingest(str(path), target, IngestOptions(emulated=True), lambda done, total: None)
    return target


def test_command_prints_verdicts_that_fit_the_width(small: Path) -> None:
    done = run_command(small.parent, "claims", str(small))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("  thresholds") for line in lines) == 18
    assert "conventions" in lines[-1]


def test_command_takes_claims_and_thresholds(small: Path) -> None:
    done = run_command(small.parent, "claims", str(small), "--only", "c4,C8", "--json",
                       "--threshold", "c8.switches=0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == "vpmu-analyzer/claims/1"
    assert [(c["id"], c["verdict"]) for c in answer["claims"]] == [("C4", "fails"), ("C8", "holds")]
    keys = {"id", "text", "verdict", "numbers", "evidence", "needs", "base", "margin", "thresholds"}
    assert all(keys <= set(claim) for claim in answer["claims"])


@pytest.mark.parametrize(
    "flags",
    [
        ("--only", "c19"),
        ("--threshold", "c1.nothing=1"),
        ("--threshold", "c1.saving"),
        ("--threshold", "c1.saving=-1"),
        ("--threshold", "c1.saving=nan"),
        ("--thresholds", "no-such-file.toml"),
    ],
)
def test_command_refuses_what_it_cannot_take(small: Path, flags: tuple[str, str]) -> None:
    done = run_command(small.parent, "claims", str(small), *flags)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_file_of_thresholds_goes_over_the_shipped_ones(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('schema = "vpmu-analyzer/thresholds/1"\n[c8]\nswitches = 0\n')
    done = run_command(
        small.parent, "claims", str(small), "--only", "c8", "--json", "--thresholds", str(path)
    )
    claim = json.loads(done.stdout)["claims"][0]
    assert (claim["verdict"], claim["thresholds"]) == ("holds", {"switches": 0})
