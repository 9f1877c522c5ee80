"""Which designs come of the user's words and files, and which words are refused?"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from analyzer.errors import UsageError
from analyzer.pipeline import (
    IngestOptions,
    choose_designs,
    ingest,
    list_placements,
    show_placement,
    whatif,
)
from analyzer.replay import GUARDS, load_placement, shipped_placements, shipped_text
from analyzer.timeline.points import Kind
from tests.conftest import ROOT, run_command
from tests.test_replay_laws import GOOD

SWITCHING = GOOD.replace('put = ["guest_end"]', 'put = ["vcpu_put"]')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + 'guard = ["luck"]\n', "key 'guard' is 'luck'; allowed: 'irq_off', 'nmi_guard', "),
        (GOOD + 'clearing = "wet"\n', "key 'clearing' is 'wet'; allowed: 'blind', 'dirty', 'none'"),
        (GOOD + 'guard = "irq_off"\n', "key 'guard' must be there and be a list: 'irq_off', "),
        (GOOD.replace("changes = []", "changes = [1]"), "key 'changes' holds 1; allowed: strings"),
        (GOOD.replace('["entry"]', '[["entry"]]'), "key 'load' holds \\['entry'\\]; allowed: str"),
        (GOOD.replace('name = "x"', 'name = "a b"'), "key 'name' is 'a b'; allowed: up to 40"),
        (GOOD.replace('name = "x"', 'name = "all"'), "key 'name' is 'all'; allowed: up to 40"),
        (SWITCHING, "key 'hook' must be there: 'vcpu_put' swaps at context switches"),
        ("name = \n", "Invalid value"),
    ],
)
def test_a_bad_file_names_its_key_and_what_it_allows(text: str, line: str) -> None:
    with pytest.raises(UsageError, match=f"^x.toml: {line}"):
        load_placement(text, "x.toml")


def test_every_shipped_placement_says_who_proposed_it_and_who_pays() -> None:
    names = [row["name"] for row in list_placements()["placements"]]
    assert names == list(shipped_placements())
    for name in names:
        shown = show_placement(name)
        raw = tomllib.loads(shown["text"])
        assert shown["text"] == shipped_text(name)
        assert raw["name"] == name
        for key in ("title", "proposed_by", "hardware", "deterministic"):
            assert len(raw[key]) >= 3, (name, key)
        assert set(raw["changes"]) <= {"KVM", "perf core", "PMU driver"}
        guard = GUARDS if raw["perf_told"] else ("irq_off",)
        assert shown["placement"]["guard"] == guard  # none is declared


def test_options_multiply_a_design_and_defaults_follow_what_perf_is_told() -> None:
    both = choose_designs(["loop"], ["told", "untold"])
    assert [design.guard for design in both] == [GUARDS, ("irq_off",)]
    assert {design.clearing for design in both} == {"dirty"}
    some = choose_designs(
        ["vcpu"], None, None, ["none", "dedicated_vector,irq_off"], ["none", "blind"]
    )
    assert [(design.guard, design.clearing) for design in some] == [
        ((), "none"), ((), "blind"), (("irq_off", "dedicated_vector"), "none"),
        (("irq_off", "dedicated_vector"), "blind"),
    ]  # fmt: skip
    assert len({design.label for design in some}) == 4
    for words in (["luck"], ["irq_off,luck"]):
        with pytest.raises(UsageError, match="--guard has 'luck'; allowed: irq_off"):
            choose_designs(["vcpu"], guards=words)
    with pytest.raises(UsageError, match="--clearing is 'wet'; allowed: blind, dirty, none"):
        choose_designs(["vcpu"], clearings=["wet"])


def test_own_files_stand_beside_the_shipped_and_take_no_name_of_theirs(tmp_path: Path) -> None:
    mine, twin, loop = (tmp_path / f"{name}.toml" for name in ("mine", "twin", "loop"))
    mine.write_text(GOOD + 'guard = ["nmi_guard", "irq_off"]\nclearing = "none"\n')
    twin.write_text(GOOD)
    loop.write_text(GOOD.replace('name = "x"', 'name = "loop"'))
    shipped, own = choose_designs(["loop"], own=[mine])
    assert (shipped.placement.name, own.placement.name) == ("loop", "x")
    assert (own.guard, own.clearing) == (("irq_off", "nmi_guard"), "none")
    with pytest.raises(
        UsageError, match=r"key 'name' is 'loop': a shipped placement has that name"
    ):
        choose_designs(["vcpu"], own=[loop])
    with pytest.raises(
        UsageError, match=r"twin.toml: key 'name' is 'x': .*mine.toml has that name"
    ):
        choose_designs(["vcpu"], own=[mine, twin])


def test_placement_commands_print_or_refuse_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b'name = "\xff"')
    (tmp_path / "long.toml").write_bytes(b"#" * (1 << 17))
    (tmp_path / "loop.toml").write_text(shipped_text("loop"))
    (tmp_path / "mine.toml").write_text(GOOD)
    for name, said in (
        ("absent.toml", "No such file"), ("bytes.toml", "byte 8 is no UTF-8"),
        ("long.toml", "more than 65536 bytes"), (".", "Is a directory"),
        ("loop.toml", "a shipped placement has that name"),
    ):  # fmt: skip
        for words in (("placement", "check", name), ("whatif", "--placement", name)):
            if (words[0], name) == ("whatif", "."):
                continue
            done = run_command(tmp_path, *words)
            assert (done.returncode, done.stdout) == (2, b""), done.stderr
            assert said in done.stderr.decode()
            assert len([x for x in done.stderr.decode().splitlines() if "analyzer:" in x]) == 1
    done = run_command(tmp_path, "placement", "check", "mine.toml", "--json")
    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["placement"]["load"]) == (
        "vpmu-analyzer/placement/1",
        ["entry"],
    )
    done = run_command(tmp_path, "placement", "show", "nowhere")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"'nowhere' is unknown; allowed: exit, loop" in done.stderr
    done = run_command(tmp_path, "placement", "list", "--json")
    assert json.loads(done.stdout)["schema"] == "vpmu-analyzer/placements/1"


# Under `loop` every overflow of the guest's is met; without its vector it is an NMI nobody claims.
def test_guards_of_a_recording_bear_on_what_a_slow_count_gives(tmp_path: Path) -> None:
    fixture = ROOT / "fixtures" / "k73m-hostperf.pftrace.zst"
    options = IngestOptions(emulated=True)
    store = ingest(str(fixture), tmp_path / "x.vpmu", options, lambda d, t: None)
    every = choose_designs(
        ["loop"], guards=["irq_off,nmi_guard,dedicated_vector", "irq_off", "none"]
    )
    whole, vectorless, none = whatif(store, every)["placements"]
    points = store.read("point", ["kind"])["kind"].to_pylist()
    overflows = points.count(int(Kind.GUEST_PMI))
    assert overflows > 0
    assert whole["conflicts"]["consequences"] == {}
    for answer in (vectorless, none):
        want = {"pmi_misdelivered": overflows, "guest_overflow_lost": overflows}
        assert answer["conflicts"]["consequences"] == want
        assert answer["guards"]["dedicated_vector"] == {"held": False, "conflicts": overflows}
    swaps = store.read("recorded_swap").to_pylist()
    within: dict[str, int] = {}
    for row in store.read("host_episode").to_pylist():
        if any(s["cpu"] == row["cpu"] and s["ts"] <= row["ts"] <= s["end"] for s in swaps):
            within[row["context"]] = within.get(row["context"], 0) + 1
    assert none["guards"]["irq_off"]["episodes_in_recorded_swaps"] == within
    assert whole["guards"]["irq_off"]["held"] is True
