# Two commands for a new machine: `make demo` and `make test`. `make help` names the others.
BIN := .venv/bin

.DEFAULT_GOAL := demo
.PHONY: help demo test slow lint stage pins

help: ## show what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

demo: $(BIN)/.installed ## run the embedded benchmark, about 16 minutes; results/demo/index.html shows it
	$(BIN)/snakemake --cores all

test: $(BIN)/.installed ## run the fast tests, about eight minutes on two cores
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder --durations 20 -m "not slow"

# Each is a minute or more: the paper's configurations whole, a Slurm, CIFAR-10, plug-ins that die.
slow: $(BIN)/.installed ## run the tests that `make test` leaves out
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder --durations 20 -m slow

# The next stage of the training queue (config/queue.yaml), or STAGE; DATA is a folder that holds the training images.
stage: $(BIN)/.installed ## train the next stage of the training queue
	nice -n 19 $(BIN)/python workflow/scripts/train_stage.py --queue config/queue.yaml $(if $(STAGE),--stage $(STAGE)) $(if $(DATA),--data $(DATA))

pins: $(BIN)/.installed ## write requirements.txt and environment.yml from pyproject.toml
	$(BIN)/python workflow/scripts/pins.py

lint: $(BIN)/.installed ## check the form of the code and of the rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

$(BIN)/.installed: requirements.txt
	@echo "Installing what requirements.txt names into .venv: some gigabytes, a few minutes, once"
	python3 -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation -e . # the command `cachebench`
	touch $@
