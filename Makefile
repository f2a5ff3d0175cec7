# Two commands for a new machine: `make demo` and `make test`.
BIN := .venv/bin

.PHONY: demo test slow lint stage pins

demo: $(BIN)/.installed
	$(BIN)/snakemake --cores all
	@echo "Open results/demo/index.html"

test: $(BIN)/.installed
	$(BIN)/python -m pytest -q -m "not slow"

# What `make test` leaves out, each a minute or more: the paper's configurations whole, a Slurm, CIFAR-10.
slow: $(BIN)/.installed
	$(BIN)/python -m pytest -q -m slow

# The next stage of the training queue (config/queue.yaml), or STAGE; DATA is a folder that holds the training images.
stage: $(BIN)/.installed
	nice -n 19 $(BIN)/python workflow/scripts/train_stage.py --queue config/queue.yaml $(if $(STAGE),--stage $(STAGE)) $(if $(DATA),--data $(DATA))

pins: $(BIN)/.installed
	$(BIN)/python workflow/scripts/pins.py

lint: $(BIN)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

$(BIN)/.installed: requirements.txt
	python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
