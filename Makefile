# Two commands matter: `make book` builds it, `make test` proves it. Both set up what they need, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BOOK   := $(BIN)/jupyter-book build nbs --config "$(CURDIR)/_config.yml" --toc "$(CURDIR)/_toc.yml" --path-output . -W -n --keep-going
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND := module://matplotlib_inline.backend_inline

.PHONY: book test evidence replicate serve bench clean help package
.DEFAULT_GOAL := help

book: $(READY) package  ## run every notebook and build the book into _build/html
	@$(BOOK)
	@echo "The book is built. Open file://$(CURDIR)/_build/html/index.html"

# The book has just run the studies again; and workers that a page starts inside a worker would be waited for, idle, at the end.
test: book  ## run the tests in the notebooks (nbdev_test), then those in tests/ (pytest), which look at the book
	OPLAS_STUDY=none JOBLIB_MULTIPROCESSING=0 $(BIN)/nbdev_test --n_workers 2 --skip_file_glob 32b_studies.ipynb
	$(BIN)/nbdev_test --path nbs/32b_studies.ipynb --n_workers 0
	$(BIN)/python -m pytest tests -n 2 --dist worksteal

PAGE ?= $(patsubst nbs/%.ipynb,%,$(shell grep -lE '\bstudy\(' nbs/*.ipynb))
STUDIES = $(BIN)/python -c 'import sys, oplas.studies; sys.exit(oplas.studies.main(sys.argv[1:]))' $(PAGE)
export OPLAS_STUDY = $(STUDY)
evidence: $(READY) package  ## compute the seeds that are missing or stale; of one chapter: PAGE=03_sampler, one study: STUDY=kinds
	@OPLAS_EVIDENCE=store $(STUDIES)

replicate: $(READY) package  ## run all seeds again, PAGE and STUDY as above, and compare
	@OPLAS_FULL=1 $(STUDIES)

PORT ?= 8000
serve: book  ## build, serve the book on http://localhost:8000, and build again when a source changes
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html >/dev/null & server=$$!; \
	trap 'kill $$server 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	sleep 1; kill -0 $$server 2>/dev/null || exit 1; \
	echo "Serving http://localhost:$(PORT); stop with Ctrl-C"; \
	$(BIN)/watchfiles --ignore-paths nbs/.ipynb_checkpoints "$(MAKE) --no-print-directory book" nbs oplas/static _config.yml _toc.yml references.bib

bench: $(READY) package  ## measure the package against its peers, side by side
	@for f in tests/bench_*.py; do echo "$$f"; $(BIN)/python $$f || exit 1; done

clean:  ## remove what was built; the environment stays (remove .venv yourself to start from nothing)
	rm -rf _build build dist

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s%s\n", $$1, $$2}' Makefile

package: $(READY)  ## export the package, and write what follows from the registry of chapters
	@$(BIN)/nbdev_export
	@$(BIN)/python -c 'import oplas.chapters; oplas.chapters.write()'

# Set-up runs again only when one of these files changed; a set-up that was interrupted leaves no mark and starts over.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "oplas needs Python 3.10 or newer; make PYTHON=python3.12 names another"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[audio,music,realtime,encoders,book,dev]" --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps musicnn==0.1.0  # alone: it asks for a NumPy of 2019; we read its weights only
	@$(BIN)/python -m pip install --quiet --editable ".[effects]" --constraint constraints.txt --only-binary dawdreamer || echo "DawDreamer has no wheel for this machine: effects run in scipy (nbs/29c_fx.ipynb)"
	@$(BIN)/python -c 'import umap, librosa; librosa.resample'  # they compile themselves once: set-up, instead of a reader's time
	@touch $@
