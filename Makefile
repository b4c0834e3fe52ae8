# smolt: make setup | quickstart | check | docs | package | bench | soak | soak-full | format
# Needs python3 (3.11 or newer, with venv) and make; everything else goes into .venv.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart
NEWEST := python3.11 python3.12 python3.13 python3.14 python3
PYTHON ?= $(shell for name in $(NEWEST); do if command -v $$name >/dev/null 2>&1 && \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
# A stamp carries the checksum of what was installed, so an unchanged pyproject and lock install nothing again.
SUM := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
USER_STAMP := $(VENV)/.installed-user-$(SUM)
DEV_STAMP := $(VENV)/.installed-dev-$(SUM)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The distribution was once called smolt: beside smolt-align it would own the same command.
CLEAR_OLD := $(BIN)/python -m pip uninstall -qq --yes smolt && rm -rf src/smolt.egg-info

.PHONY: setup quickstart picture check docs package bench soak soak-full format
.DEFAULT_GOAL := check

setup: $(DEV_STAMP)

quickstart: $(USER_STAMP)
	$(BIN)/smolt study quickstart --out $(OUT)
	@echo "The report: $(abspath $(OUT))/report.html"

picture:  # docs/report.png from the report of the quickstart
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1120,1500 --screenshot=docs/report.png file://$(abspath $(OUT))/report.html

check: $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses auto --dist worksteal

package: $(DEV_STAMP)  # the source distribution, and the wheel made from it, in dist
	rm -rf dist
	$(BIN)/python -m build --no-isolation --quiet
	@ls dist/*

docs: $(DEV_STAMP)  # the pages as a site that needs no server; a dead link or an unlisted page is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The pages: $(abspath site/index.html)"

bench: $(DEV_STAMP)
	$(BIN)/python -m bench

soak: $(DEV_STAMP)
	$(BIN)/python -m pytest -m "slow and not gpu"

soak-full: $(DEV_STAMP)  # the counts of a release; the table goes to runs/soak-full.md
	mkdir -p runs && rm -f runs/soak-full.jsonl
	SMOLT_SOAK_FULL=1 SMOLT_SOAK=$(abspath runs/soak-full.jsonl) $(BIN)/python -m pytest -m slow tests/reliability; \
	code=$$?; $(BIN)/python -m tests.soak runs/soak-full.jsonl > runs/soak-full.md; cat runs/soak-full.md; exit $$code

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "smolt needs python3.11 or newer (or: make PYTHON=/path/to/python3)" >&2; exit 2; fi
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv module is missing (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }

$(USER_STAMP): | $(BIN)/python
	@$(CLEAR_OLD)
	$(PIP_INSTALL) -e .
	@rm -f $(VENV)/.installed-user-* && touch $@

$(DEV_STAMP): | $(BIN)/python
	@$(CLEAR_OLD)
	$(PIP_INSTALL) -e '.[dev]'
	@rm -f $(VENV)/.installed-user-* $(VENV)/.installed-dev-* && touch $@ $(USER_STAMP)
