# make figures   everything from nothing: set-up, data, every notebook, every figure
# make explore   set-up, data, then the explorer in a browser
# make test      set-up, data, then every check
# make docs      set-up, then the pages, notebooks and the library's reference as a site
# make reproduce set-up, then everything that is committed and built: checkpoints, records, figures
# Needs make and Python 3.11 or newer; nothing is installed outside .venv.

MODE ?= full
VENV := .venv
BIN := $(VENV)/bin
# Names the interpreter to build .venv with (PYTHON=... overrides): the first that is new enough and can make one.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
# Touched last, so an interrupted set-up starts over; older than its inputs, it is stale.
READY := $(VENV)/.ready

.PHONY: help setup figures explore test docs reproduce

help:
	@echo "make figures [MODE=full|quick|paper]   set up, fetch the data, run every notebook, write figures/"
	@echo "make explore                           set up, fetch the data, open the explorer in a browser"
	@echo "make test                              set up, fetch the data, then lint, tests and every notebook in quick mode"
	@echo "make docs                              set up, then build the pages, notebooks and API as a site"
	@echo "make reproduce                         set up, then train, measure and draw everything anew (hours; it resumes)"
	@echo "make setup                             only build .venv (PYTHON=... chooses the interpreter)"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer with its venv module was found: install one, or name it with PYTHON=..." >&2; \
		exit 1; fi
	@echo "Setting up $(VENV) with $(PYTHON): once, 2 to 10 minutes (on Linux about 2.7 GB to download, 6 GB on disk)."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

figures: $(READY)
	@echo "Fetching the data sets: a minute or two the first time; one that cannot be had has a stand-in."
	@$(BIN)/rnp data || echo "Not every data set could be had: the figures that need it show a stand-in, and say so."
	@echo "Running the notebooks in mode $(MODE): a few minutes each in full mode, under one in quick mode."
	@$(BIN)/rnp figures --mode $(MODE)

explore: $(READY)
	@echo "Fetching the data sets: a minute or two the first time; the explorer offers those that can be had."
	@$(BIN)/rnp data || echo "Not every data set could be had: the explorer draws characters of its own (strokes)."
	@echo "Opening http://localhost:8866, or the next free port, for this machine only; Ctrl-C ends it."
	@RNP_OFFLINE=1 JUPYTER_PATH=rnp_lib/explorer/jupyter $(BIN)/voila notebooks/06_explore.ipynb --port 8866 --template=offline \
		--TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_cell_tags=notebook-only

test: $(READY)
	@echo "Fetching the data sets: a minute or two the first time."
	@$(BIN)/rnp data || echo "Not every data set could be had: the tests that need it are skipped (they fail if CI=true)."
	@echo "Checking: style, then the tests and every notebook in quick mode (some minutes on two cores)."
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	RNP_MODE=quick OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env tests notebooks

docs: $(READY)
	@echo "Building build/docs/index.html: a minute."
	@$(BIN)/sphinx-build -q -W --keep-going -b html -c docs/site . build/docs
	@echo "Open build/docs/index.html."

reproduce: $(READY)
	$(BIN)/snakemake --snakefile workflow/Snakefile --cores 2
