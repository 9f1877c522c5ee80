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

# events a second and bytes an event of every kernel; arguments go to the script
bench *args:
    {{ python }} bench/run.py {{ args }}

# the laws of the design on many more generated histories than `just test` takes
laws *args:
    {{ python }} -m pytest -m laws --hypothesis-profile=many {{ args }}
