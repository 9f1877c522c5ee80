# The repository's chores. Everything runs from .venv, which `just sync` makes; where `just` is not
# installed, .venv/bin/just is.

python := ".venv/bin/python"

[private]
default:
    @{{ just_executable() }} --list

# make .venv with the exact versions of constraints.txt
sync:
    python3 -m venv .venv
    {{ python }} -m pip install -q -c constraints.txt -e '.[dev]'

# formatting, lint, types, import contracts
check:
    {{ python }} -m ruff format --check .
    {{ python }} -m ruff check .
    {{ python }} -m mypy
    .venv/bin/lint-imports --no-cache

# the suite; arguments go to pytest
test *args:
    {{ python }} -m pytest {{ args }}

# write schemas/ anew from analyzer/tables
schemas:
    {{ python }} -m analyzer.tables.schema --write schemas

# write fixtures/golden anew, by code that shares nothing with the analyzer
fixtures:
    {{ python }} fixtures/make_golden.py fixtures/golden fixtures/*.pftrace.zst

# the same for trace.dat; peers: a folder of what `trace-cmd report` printed when they were recorded
fixtures-tracedat peers:
    {{ python }} fixtures/make_golden_tracedat.py fixtures/golden/tracedat {{ peers }} fixtures/*.dat.zst

# what ingest costs beside peers, cost points, and replaying all placements; arguments go to the first
bench *args:
    {{ python }} bench/run.py {{ args }}
    {{ python }} bench/costs.py
    {{ python }} bench/replay.py

# replaying alone: all placements at 1, 10 and 50 million points; arguments go to the script
bench-replay *args:
    {{ python }} bench/replay.py {{ args }}

# the laws of the design on many more generated histories than `just test` takes
laws *args:
    {{ python }} -m pytest -m laws --hypothesis-profile=many {{ args }}
