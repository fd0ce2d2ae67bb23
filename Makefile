# Every target works with a virtual environment that is not activated: DVC finds `python` on PATH, so the environment comes first.
PYTHON ?= python3
VENV ?= .venv
BASH := /bin/bash
SHELL := $(BASH)
.SHELLFLAGS := -eu -o pipefail -c
# Where `make app` serves the demo.
ADDRESS ?= 127.0.0.1
PORT ?= 8501
export PATH := $(abspath $(VENV))/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help run repro plots metrics verify app api test operations browser drills lint check clean record lock audit

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

run: repro ## set up, run the pipeline, say where the results are
	@python -m tools.summary

repro: $(VENV)/.installed ## set up, then dvc repro: runs what has changed
	@python -m tools.mend
	@dvc repro

plots: $(VENV)/.installed ## write dvc_plots/index.html, one page of all plots that needs no network
	@python -m tools.plots_page

metrics: $(VENV)/.installed ## print the headline metrics with their intervals; metrics/*.json has all
	@python -m tools.summary

verify: $(VENV)/.installed ## hold every file of the DVC cache against its MD5, which DVC itself does not
	@python -m tools.verify_cache

app: $(VENV)/.installed-app ## the demo in a browser, at http://127.0.0.1:8501; PORT=9000 takes another port
	@python -m streamlit run app/demo.py --server.address $(ADDRESS) --server.port $(PORT)

api: $(VENV)/.installed-app ## serve the trained classifier to this machine at http://127.0.0.1:8000 until Ctrl-C; docs/serving.md has the settings
	@python -m api

test: $(VENV)/.installed-dev lint ## set up, then the linters and the tests; the slow ones are in make operations
	@python -m pytest --numprocesses 2 --dist worksteal

operations: $(VENV)/.installed-dev ## the slow tests: reruns of the pipeline, the GPU job, remotes, the demo in a browser, the short drills
	@ci/browser.sh
	@DRILLS=short python -m pytest --numprocesses 2 --dist loadfile -m "operations or drills"
	@python -m pytest --numprocesses 2 --dist loadfile -m browser  # apart: Playwright leaves its event loop to a process

browser: $(VENV)/.installed-dev ## the demo in a headless Chromium: every refusal, heat maps, downloads, accessibility
	@ci/browser.sh
	@python -m pytest -m browser

drills: $(VENV)/.installed-dev ## all drills, for about an hour; their table is printed and recorded in results/drills.json
	@rm -f .drills.jsonl
	@status=0; DRILLS=full DRILLS_LEDGER=.drills.jsonl python -m pytest --numprocesses 2 --dist loadfile -m drills || status=$$?; \
		python -m tests.drills.table .drills.jsonl $$(test $$status -ne 0 || echo --record); exit $$status

lint: $(VENV)/.installed-dev ## ruff: rules and format; import-linter: the order of the rooms; mypy: types
	@ruff check .
	@ruff format --check .
	@lint-imports --no-logo
	@mypy

record: $(VENV)/.installed ## record the run in the workspace: make record NAME=my-run writes results/my-run/
	@python -m tools.record_results "$(NAME)"
	@python -m tools.readme_tables

lock: $(VENV)/.installed-dev ## write requirements/pipeline.lock anew from the direct pins; UPGRADE=--upgrade takes the newest of what they leave open
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url $(UPGRADE) \
		--custom-compile-command "make lock" --output-file requirements/pipeline.lock requirements.txt requirements/remotes.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --constraints requirements/pipeline.lock \
		--custom-compile-command "make lock" --output-file requirements/tools.lock requirements/remotes.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --constraints requirements/pipeline.lock \
		--custom-compile-command "make lock" --output-file requirements/app.lock requirements/app.txt

audit: $(VENV)/.installed-dev ## look up known holes of the packages in requirements/pipeline.lock; ci/audit-allow.toml lists what is tolerated until when
	@python -m ci.audit

clean: ## remove what the stages wrote, downloaded archives and the environment; the DVC cache stays
	rm -rf $(VENV) dvc_plots report logs .resume .hypothesis .pytest_cache .ruff_cache
	find data models plots -mindepth 1 ! -name .gitkeep -delete

# By sh, as bash may be what is missing; with the environment's Python where there is one, since that is what installs.
check: SHELL := /bin/sh
check: .SHELLFLAGS := -c
check: ## say what this machine lacks for the set-up, all of it at once; every target that sets up begins with it
	@python=$(VENV)/bin/python; test -x "$$python" || python=$(PYTHON); command -v "$$python" > /dev/null || { \
		echo "error: no $$python on PATH$$(command -v git > /dev/null || echo " and no git"): install what is missing (Python 3.11 or later), or name one with make PYTHON=/path/to/python3" >&2; exit 1; }; \
		"$$python" tools/check_setup.py --venv $(VENV) --make $(MAKE_VERSION) --bash $(BASH)

$(VENV)/bin/python: | check
	@$(PYTHON) -m venv $(VENV) || { ! test -f $(VENV)/pyvenv.cfg || rm -rf $(VENV); \
		echo "error: \`$(PYTHON) -m venv $(VENV)\` failed, see above; on Debian and Ubuntu install python3-venv, or name another Python with make PYTHON=..." >&2; \
		exit 1; }

# From the lock, not from requirements.txt: what tests, CI and the container have, to the last indirect package, and nothing whose
# hash is another. tests/tools/test_requirements.py holds the lock against the direct pins.
$(VENV)/.installed: requirements/pipeline.lock | check $(VENV)/bin/python
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/pipeline.lock
	@touch $@

# Versions of what both locks have are the same, so that this adds packages and changes none.
$(VENV)/.installed-app: requirements/app.lock $(VENV)/.installed
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/app.lock
	@touch $@

# What tests need must not replace a locked package, as a newer boto3 would its botocore.
$(VENV)/.installed-dev: requirements/dev.txt $(VENV)/.installed $(VENV)/.installed-app
	grep --no-filename --only-matching '^[^ #]*==[^ ]*' requirements/pipeline.lock requirements/app.lock > $(VENV)/locked.txt
	python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/locked.txt -r requirements/dev.txt
	@touch $@
