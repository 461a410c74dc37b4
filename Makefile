# Needs Python 3.10 or newer, git and nothing else. `make demo` shows what Blemish does, `make test` checks all but
# repetitions, which `make slow` runs, and `make long` further ones, which CI has no time for. `make dist` builds wheel,
# sdist and bill of materials, `make light` inspects and serves without torch from these, `make lock` and `make licences`
# write down the dependencies anew, `make docs` builds the documentation site into build/docs; a warning fails it, and it
# needs no network.
# `make services` installs, as root on Debian, what tests of the server run against; without it these are skipped.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# The pins are those of Python 3.11 and newer; 3.10 takes the newest versions that still support it.
PINS := $(shell $(PYTHON) -c "import sys; print('-c constraints.txt' if sys.version_info >= (3, 11) else '')")

SUPPLY_BIN := build/supply/bin
SUPPLY := build/supply/installed
# Versions in which `make light` installs wheel and sdist, where they are found.
PYTHONS ?= $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])")

.PHONY: demo services test slow long light dist lock licences docs format clean

demo: $(INSTALLED)
	$(BIN)/blemish demo --out demo

services:
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y mosquitto postgresql chromium ffmpeg g++ cmake systemd
	$(PYTHON) -m venv .venv-moto  # of its own: its packages do not agree with the pins
	.venv-moto/bin/python -m pip install --disable-pip-version-check -q 'moto[s3,s3crc32c]==5.2.5' 'flask==3.1.3' 'flask-cors==6.0.5'
	$(PYTHON) -m venv .venv-ome-zarr  # which brings dask and clients of cloud storage
	.venv-ome-zarr/bin/python -m pip install --disable-pip-version-check -q 'ome-zarr==0.18.0'

test: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy & types=$$!; OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --durations=10 && wait $$types

slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup --durations=10 -m "slow and not long"

long: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --durations=10 -m long

light: $(INSTALLED) dist
	$(BIN)/python -m tests.light --python $(PYTHONS)

# Wheel, sdist and bill of materials. With the time of the commit, the same commit gives the same wheel.
dist: $(INSTALLED) $(SUPPLY)
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(SUPPLY_BIN)/python -m build --outdir dist
	$(SUPPLY_BIN)/cyclonedx-py environment --output-reproducible --validate --pyproject pyproject.toml \
		--mc-type library --output-file dist/blemish.cdx.json $(BIN)/python

# Needs a package registry: requirements/*.txt, with the hash of every file.
lock: $(INSTALLED) $(SUPPLY)
	PATH=$(CURDIR)/$(SUPPLY_BIN):$$PATH $(BIN)/python -m supply.lock

licences: $(INSTALLED)
	$(BIN)/python -m supply.licences

docs: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -E -q -W --keep-going -b html -d build/doctrees docs build/docs

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo build dist docs/reference

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(PINS) -e '.[train,dev]'
	touch $@

$(SUPPLY): requirements/supply.txt
	rm -rf build/supply
	$(PYTHON) -m venv build/supply
	$(SUPPLY_BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements/supply.txt
	touch $@
