"""Does what the user says of host events become rows of host_event, and is nonsense refused?"""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.errors import UsageError
from analyzer.pipeline import IngestOptions, host_events_of, ingest
from analyzer.pipeline.stated import host_event_of
from tests.conftest import ROOT
from tests.conftest import run_command as run

FIXTURE = ROOT / "fixtures" / "k73m-fastpath.pftrace.zst"


def test_words_become_a_row_with_perfs_numbers() -> None:
    row = host_event_of("branch-misses:uH,period=1000,cpu=0,2-3,pinned,exclude_guest=no,tid=5")
    assert row == {
        "name": "branch-misses:uH", "source": "--host-event", "type": 0, "config": 5, "freq": None,
        "period": 1000, "cpus": "0,2-3", "tid": 5, "pid": None, "exclude_guest": False,
        "exclude_host": None, "exclude_kernel": True, "exclude_user": None, "pinned": True,
        "use": "sampled", "scope": "task",
    }  # fmt: skip
    assert host_event_of("r00c0")["config"] == 0xC0
    assert host_event_of("cycles,cpu=all")["cpus"] is None
    assert host_event_of("cycles")["use"] == "counted"
    assert host_event_of("cycles:G")["exclude_host"] is True


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("cycle", "event 'cycle'", "instructions"),
        ("cycles:Z", "modifier 'Z'", "u, k"),
        ("cycles,often", "key 'often'", "freq, period, cpu"),
        ("cycles,freq=fast", "key 'freq'", "1 to"),
        ("cycles,freq=0", "key 'freq'", "1 to"),
        ("cycles,freq=-1", "key 'freq'", "1 to"),
        ("cycles,freq=99,period=99", "'freq' and 'period'", "one of them"),
        ("cycles,cpu=some", "key 'cpu'", "all, or numbers"),
        ("cycles,cpu=3-1", "key 'cpu'", "all, or numbers"),
        ("cycles,pinned=maybe", "key 'pinned'", "yes, no"),
        ("cycles,tid=99999999999", "key 'tid'", "1 to"),
    ],
)
def test_wrong_words_are_one_line_with_the_key_and_what_is_allowed(
    text: str, key: str, allowed: str
) -> None:
    with pytest.raises(UsageError) as refused:
        host_event_of(text)
    said = str(refused.value)
    assert key in said
    assert f"allowed: {allowed}" in said or allowed in said
    assert "\n" not in said


def test_attributes_of_a_file_become_rows(tmp_path: Path) -> None:
    file = tmp_path / "ran.toml"
    file.write_text(
        '[[event]]\ntype = 0\nconfig = 0\nsample_freq = 997\nexclude_guest = true\ncpus = "all"\n'
        '[[event]]\ntype = "raw"\nconfig = 0xc0\nname = "retired"\nsample_period = 0\npid = 12\n'
        "cpus = [0, 2]\npinned = true\n"
        '[[event]]\nconfig = "cpu-clock"\nsample_period = 5\n'
    )
    first, second, third = host_events_of(None, [file])
    assert first["source"] == "--host-events ran.toml"
    assert (first["type"], first["freq"], first["exclude_guest"]) == (0, 997, True)
    assert (second["type"], second["config"], second["name"]) == (4, 0xC0, "retired")
    assert (second["use"], second["scope"], second["cpus"]) == ("counted", "task", "0,2")
    assert (third["type"], third["period"], third["name"]) == (1, 5, "cpu-clock")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("event = 1", "key 'event'"),
        ("[[events]]\ntype = 0", "key 'events' is unknown; allowed: event"),
        ("[[event]]\nfreq = 1", "event 1: key 'freq' is unknown; allowed: name, type"),
        ("[[event]]\nconfig = 1", "key 'type' must be there; allowed: hardware"),
        ("[[event]]\ntype = 'hard'", "key 'type' is 'hard'; allowed: hardware"),
        ("[[event]]\ntype = true", "key 'type' is True; allowed: 0 to"),
        ("[[event]]\ntype = 0\nsample_freq = 1.5", "key 'sample_freq' is 1.5; allowed: 1 to"),
        ("[[event]]\ntype = 0\npinned = 1", "key 'pinned' is 1; allowed: true, false"),
        ("[[event]]\ntype = 0\ncpus = 3", "key 'cpus' is 3; allowed: all, or numbers"),
        ("[[event]]\ntype = 0\nconfig = -1", "key 'config' is -1; allowed: 0 to"),
        ("[[event]]\ntype = 0\nname = 1", "key 'name' is 1; allowed: a text"),
        ("[[event]]\ntype = 0\nsample_freq = 1\nsample_period = 1", "exclude each other"),
        ("[[event", "ran.toml: "),
    ],
)
def test_wrong_files_are_one_line_with_the_key_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "ran.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        host_events_of(None, [tmp_path / "ran.toml"])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="cannot read"):
        host_events_of(None, [tmp_path / "absent.toml"])


def test_rows_stand_in_the_store_beside_the_recordings_own(tmp_path: Path) -> None:
    options = IngestOptions(host_events=host_events_of(["cycles,freq=99,cpu=0"], None))
    store = ingest(str(FIXTURE), tmp_path / "x.vpmu", options, lambda done, total: None)
    (row,) = store.read("host_event").to_pylist()
    assert (row["name"], row["freq"], row["cpus"], row["source"]) == (
        "cycles", 99, "0", "--host-event",
    )  # fmt: skip


def test_options_reach_ingest_and_whatif_and_are_refused_beside_a_store(tmp_path: Path) -> None:
    said = ("--host-event", "cycles,freq=997")
    done = run(tmp_path, "ingest", str(FIXTURE), "-o", "x.vpmu", *said)
    assert done.returncode == 0, done.stderr
    for wrong in (("x.vpmu", *said), (str(FIXTURE), "--host-event", "cycles,freq=")):
        refused = run(tmp_path, "whatif", *wrong)
        assert refused.returncode == 2
        assert refused.stderr.count(b"\n") == 1
        assert b"allowed: " in refused.stderr
