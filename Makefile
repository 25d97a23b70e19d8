# Needs only make and Python 3.11 or newer (with its venv module). `make help` lists the targets.
#
#   make demo PYTHON=python3.12                    another Python
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                                  torch without CUDA, a tenth of the download
#                                                  (PIP_EXTRA_INDEX_URL does the same)
#   make test ARGS="tests/test_architecture.py -x" arguments for pytest

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
REPORT := demo-report
SETTINGS := setup.cfg pyproject.toml constraints.txt oracles.txt
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help demo test check study clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: $(VENV)/.installed-core ## audit the embedded checkpoint and write a report
	$(BIN)/landscape audit --out $(REPORT)
	@echo "The report: $(CURDIR)/$(REPORT)/report.html"

test: $(VENV)/.installed-test ## run the tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

check: $(VENV)/.installed-check ## lint, check format, types and import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

study: $(VENV)/.installed-test ## rerun the benchmarks; their JSON goes to docs/benchmarks
	$(BIN)/python examples/benchmarks/calibration.py
	$(BIN)/python examples/benchmarks/derivative_checks.py
	$(BIN)/python examples/benchmarks/rounding.py --seeds 11
	$(BIN)/python examples/benchmarks/spectral_coverage.py
	$(BIN)/python examples/benchmarks/noise_coverage.py
	$(BIN)/python examples/benchmarks/products.py
	$(BIN)/python examples/benchmarks/spectral_audit.py
	$(BIN)/python examples/benchmarks/memory.py
	$(BIN)/python examples/benchmarks/language_model.py
	$(BIN)/python examples/benchmarks/neighbourhood.py
	$(BIN)/python examples/benchmarks/neighbourhood_coverage.py
	$(BIN)/python examples/benchmarks/searches.py
	$(BIN)/python examples/benchmarks/geodesic.py
	$(BIN)/python examples/diagonal_networks.py
	$(BIN)/python examples/flat_minima.py
	$(BIN)/python examples/flat_minima.py --budget 120 --methods sgd,sam,gsam,wasam \
		--record docs/benchmarks/flat_minima_long.json --figure /tmp/flat_minima_long.png
	$(BIN)/python examples/benchmarks/slices.py
	$(BIN)/python examples/benchmarks/refinement.py
	$(BIN)/python examples/kendall_digits.py --keep docs/results/digits
	$(BIN)/python examples/benchmarks/correlation_coverage.py --rounds 200
	$(BIN)/python examples/benchmarks/correlation_speed.py
	$(BIN)/python examples/benchmarks/sweep_throughput.py --population kendall-digits/models
	$(BIN)/python examples/benchmarks/sweep_kills.py
	$(BIN)/python examples/benchmarks/tables.py

clean: ## remove caches, builds and the demo report, but keep .venv
	rm -rf build dist *.egg-info htmlcov .coverage $(REPORT)
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find landscape measures viz tests examples -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/.installed-core: $(SETTINGS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, but PYTHON=$(PYTHON) is" \
			"$$($(PYTHON) --version 2>&1 || true)." \
			"Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-core
	$(INSTALL) --no-build-isolation -e ".[test]"
	$(INSTALL) --no-deps -r oracles.txt
	@touch $@

$(VENV)/.installed-check: $(VENV)/.installed-core
	$(INSTALL) --no-build-isolation -e ".[check]"
	@touch $@
