# Every target sets up what it needs: system libraries (as root), .venv, packages.
# `make setup PYTHON=python3.12` picks the interpreter that a new .venv is made with.
BIN := .venv/bin

.PHONY: help setup demo test lint fuzz bench clean

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Prepare .venv, with .venv/bin/station in it; does nothing the second time
	@.ci/setup

demo: setup ## Run the station on simulated parts: a window, or without a screen pictures in demo-output/
	$(BIN)/station demo

test: lint ## Linters, then all tests, a file of them at a time in each of two processes
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: setup ## Style, types and the layers between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fuzz: setup ## 10 000 random inputs into each thing that reads bytes (an hour); in make test a few hundred
	$(BIN)/pytest -m fuzz --hypothesis-profile=fuzz --timeout=7200 --durations=0

bench: setup ## Measure what README states: make bench NAME=scan, or without NAME the list
	@test "$(NAME)" != accuracy || $(BIN)/pip show --quiet anomalib || \
		$(BIN)/python -m pip install --no-input --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks $(or $(NAME),--help)

clean: ## Remove .venv, caches and the demo's pictures; keeps station-data/
	rm -rf .venv build demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
