# `make run` and `make test` do whatever set-up is missing. CONTRIBUTING.md says more.
PYTHON ?= python3
NDR = .venv/bin/ndr

.PHONY: setup run test lint bench clean lock

setup:
	@$(PYTHON) tools/setup_env.py

run: setup
	@$(NDR) data movielens
	@$(NDR) run --date 1998-04-22

test: setup
	@.venv/bin/python -m pytest -q

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

bench: setup
	@for script in benchmarks/[a-z]*.py; do .venv/bin/python -m benchmarks.$$(basename $$script .py) || exit 1; done

clean:
	rm -rf .venv var build *.egg-info .mypy_cache .pytest_cache .ruff_cache

lock: setup
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate --no-header \
		--output-file requirements.lock pyproject.toml
