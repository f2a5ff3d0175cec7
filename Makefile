# Two commands for a new machine: `make demo` and `make test`.
BIN := .venv/bin

.PHONY: demo test slow lint

demo: $(BIN)/.installed
	$(BIN)/snakemake --cores all
	@echo "Open results/demo/index.html"

test: $(BIN)/.installed
	$(BIN)/python -m pytest -q -m "not slow"

# What `make test` leaves out, each a minute or more: the paper's configurations whole, a Slurm, CIFAR-10.
slow: $(BIN)/.installed
	$(BIN)/python -m pytest -q -m slow

lint: $(BIN)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

$(BIN)/.installed: requirements.txt
	python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
