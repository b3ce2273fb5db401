# The front door: thin targets over `job` and the tools. Needs Python 3.11, 3.12 or 3.13 with venv, and make; nothing else.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

RECIPE ?=
BUCKET ?=
RUN    ?=
SOURCE ?=
OUT    ?=
ARGS   ?=
IMAGE  ?=
IN     ?=
IMAGE_NAME ?= job

# Train takes DATA from the command line alone: one in the environment may be another program's.
DATA ?=
ifneq ($(MAKECMDGOALS),data)
ifneq ($(origin DATA),command line)
DATA :=
endif
endif

# What a person writes there reaches recipes through the environment, as text that neither make nor the shell expands.
WORDS := RECIPE BUCKET RUN DATA SOURCE OUT ARGS IMAGE IN IMAGE_NAME REPOSITORY N NODES PREEMPTIONS CONTAINER_ENGINE BASE_IMAGE \
	LOG MAX_USD NO_LIMIT NO_PREFLIGHT
NAMED := $(foreach .each,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(.each)))),$(.each)))
$(foreach word,$(WORDS),$(if $(filter undefined,$(origin $(word))),,$(eval override $(word) := $$(value $(word)))))
export $(WORDS)

# Other variables of the command line are training arguments, as `yolo` writes them (epochs=3), if they are in small
# letters; a mistyped one is an error.
OTHERS := $(filter-out $(WORDS) PYTHON VENV MAKEFLAGS,$(NAMED))
SMALL := a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 _
without = $(if $1,$(call without,$(wordlist 2,99,$1),$(subst $(firstword $1),,$2)),$2)
UNKNOWN := $(strip $(foreach .each,$(OTHERS),$(if $(call without,$(SMALL),$(.each)),$(.each))))
$(if $(UNKNOWN),$(error $(UNKNOWN): is no variable here; write it as `make help` does, and training arguments in small letters, such as epochs=3))
$(foreach .each,$(OTHERS),$(eval override $(.each) := $$(value $(.each))))
# `name` is one of them, so no loop here has that name. Some targets start no command that could take them.
BARE := help image push boot-image supervisor-image supervise-up supervise-down down sky drill vm-up vm-status vm-down env light check format kill-storm clean
$(if $(OTHERS),$(foreach .each,$(filter $(BARE),$(MAKECMDGOALS)),$(error make $(.each): would leave out $(OTHERS); \
	only a command of the job takes training arguments, and vm-up in ARGS)))
ARGUMENTS := $(OTHERS)
export ARGUMENTS $(OTHERS)

# The targets that each variable is for. One of the command line that no goal reads is an error.
OF_A_RUN := show resume stop extend advise report predict evaluate export audit supervise status logs cancel
OF_BUCKET := train campaign runs estimate compare data preflight submit $(OF_A_RUN)
IN_IMAGE := $(if $(IN),train predict)
FOR_RECIPE := train estimate preflight submit sky drill vm-up
FOR_BUCKET := $(OF_BUCKET) sky
FOR_RUN := train submit $(OF_A_RUN) supervise-up sky vm-up
FOR_DATA := train data
FOR_SOURCE := predict
FOR_OUT := predict export audit
FOR_IN := train predict
FOR_IMAGE := preflight submit supervise-up boot-image sky drill vm-up
FOR_IMAGE_NAME := $(IN_IMAGE) image image-test push test test-all
FOR_REPOSITORY := push supervisor-image
FOR_N := test-all kill-storm
FOR_NODES := sky drill
FOR_PREEMPTIONS := drill
FOR_CONTAINER_ENGINE := $(IN_IMAGE) image image-test push supervisor-image drill test test-all
FOR_BASE_IMAGE := image supervisor-image
FOR_MAX_USD := supervise-up vm-up
FOR_NO_LIMIT := $(FOR_MAX_USD)
FOR_NO_PREFLIGHT := vm-up
FOR_LOG := $(OF_BUCKET) recipes supervise-up vm-up
FOR_ARGS := $(OF_BUCKET) recipes sky drill vm-up infra-plan infra-apply infra-destroy infra-test \
	image-test test test-all gpu-test gpu-bench bench bench-tiles bench-scale lock
GOALS := $(filter $(BARE) $(FOR_ARGS),$(or $(MAKECMDGOALS),help))
UNREAD := $(strip $(foreach .each,$(filter $(WORDS),$(NAMED)),$(if $(filter $(FOR_$(.each)),$(GOALS)),,$(.each))))
$(if $(and $(GOALS),$(UNREAD)),$(error make $(GOALS): would leave out $(UNREAD); type it without$(foreach .each,$(UNREAD), \
	($(.each) is for $(strip $(FOR_$(.each)))))))

# The first Python that really runs (a pyenv shim may exist and fail), is in range, and can make an environment.
PYTHON ?= $(shell for python in python3.12 python3.13 python3.11 python3 python; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$python; break; }; done)

VENV  := .venv
BIN   := $(VENV)/bin
ENV   := $(VENV)/.installed-full
CLOUD := $(VENV)/.installed-cloud
EXPORT := $(ENV) $(VENV)/.installed-export
DEV   := $(EXPORT) $(CLOUD) $(VENV)/.installed-dev
LIGHT := $(if $(wildcard $(ENV)),$(ENV),$(VENV)/.installed-light)

# pip never asks, and takes from the registry only the files that the lock names by digest.
PIP  := $(BIN)/python -m pip install --disable-pip-version-check --no-input --no-deps
LOCK = $(WITH_ARGS) $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --only-binary :all: \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make lock'

# Behind a command's own words, training arguments and those of ARGS, in which quotes hold a word together. Nothing in
# them is run. ARGS come last: its last word may be a switch, which would take a training argument for its value.
define SPLIT
import os, shlex, sys
try:
    words = shlex.split(os.environ["ARGS"])
except ValueError as error:
    print(f"make: ARGS cannot be split into words, {error}; correct its quotes", file=sys.stderr)
    sys.exit(2)
words = [f"{name}={os.environ[name]}" for name in os.environ["ARGUMENTS"].split()] + words
os.execvp(sys.argv[1], sys.argv[1:] + words)
endef
export SPLIT
WITH_ARGS = $(or $(wildcard $(BIN)/python),$(PYTHON)) -c "$$SPLIT"

##@ Help

.PHONY: help
help: ## List targets and variables
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { line = sprintf("  make %-16s", $$1); n = split($$2, words, " "); \
			for (i = 1; i <= n; i++) { \
				if (length(line) + length(words[i]) >= 80) { print line; line = sprintf("%23s", "") } \
				line = line " " words[i] } \
			print line }' $(MAKEFILE_LIST)
	@echo
	@echo 'Variables'
	@echo '  RECIPE=A             the recipe, or a file of your own, path/to/mine.yaml:'
	@echo '                       $(RECIPES)'
	@echo '  BUCKET=gs://b/p      a bucket or a folder; without it, the folder bucket/ and'
	@echo '                       the demo profile'
	@echo '  RUN=name             a name for the run; without it, the next free one'
	@echo '  DATA=~/photos        labelled pictures for train, a folder or a ZIP: at full'
	@echo '                       scale, into bucket/ if BUCKET is left out'
	@echo '  SOURCE=path OUT=path pictures for predict, and a place for results; folders'
	@echo '                       or gs://b/p'
	@echo '  IMAGE=name@sha256:.. an image in the registry: submit, vm-up, boot-image'
	@echo '  NODES=2              machines, for sky; two for drill, as SkyPilot has them'
	@echo '  IN=image             train or predict in the image that make image built,'
	@echo '                       with the GPU if there is one'
	@echo '  CONTAINER_ENGINE=..  docker or podman; the first that is found, if left out'
	@echo '  BASE_IMAGE=..        base of the image; any Debian with Python 3.11 to 3.13'
	@echo '  epochs=3 imgsz=640   training arguments: train, extend, estimate and submit'
	@echo "  ARGS='--json'        further arguments for the command behind the target"
	@echo '  LOG=json             messages as JSON lines, as in the image; else as text'
	@echo '  PYTHON=python3.12    the Python that makes the environment (3.11 to 3.13)'

##@ Train

BUCKET_OR_DEMO = --bucket "$${BUCKET:-bucket}" $(if $(BUCKET),,--profile demo)
BUCKET_IF_NAMED = $(if $(BUCKET),--bucket "$$BUCKET")

# The bucket of a run to resume: that of the settings of the cloud if there are any, and the folder bucket/ has no such run.
NAMED_BUCKET := $(or $(BUCKET),$(wildcard bucket/runs/$(RUN)/run.json),$(if $(ARGS)$(wildcard cloud.yaml infra/outputs.json),,$(wildcard bucket)))

RECIPES := $(sort $(basename $(notdir $(wildcard job/recipes/*.yaml))))

.PHONY: train
train: $(if $(RECIPE),$(if $(IN),,$(ENV)),no-recipe) ## Train RECIPE, on DATA if given; the same command resumes
	@exec $(WITH_ARGS) $(if $(IN),docker/run.sh "$$IMAGE_NAME",$(BIN)/job) train --recipe "$$RECIPE" \
		$(if $(DATA),--data "$$DATA" --bucket "$${BUCKET:-bucket}",$(BUCKET_OR_DEMO)) $(if $(RUN),--run "$$RUN")

.PHONY: image
image: ## Build the container image, from the lock and BASE_IMAGE
	@exec docker/build.sh "$$IMAGE_NAME"

.PHONY: image-test
image-test: $(DEV) ## Test the image that `make image` built, and print its size
	@exec $(WITH_ARGS) $(BIN)/python -m pytest -n0 -rs -s tests/container/test_image.py

.PHONY: push
push: ## Push the image to REPOSITORY under a new tag, and print its digest for IMAGE=
	@exec docker/push.sh "$$IMAGE_NAME" "$$REPOSITORY"

.PHONY: campaign
campaign: $(ENV) ## Train A, then C or B as the rules advise, until F1 72 % is reached; the same command resumes
	@exec $(WITH_ARGS) $(BIN)/job campaign $(BUCKET_OR_DEMO)

.PHONY: no-recipe
no-recipe:
	@echo 'make $(firstword $(MAKECMDGOALS)): RECIPE is missing; choose one of $(RECIPES),' \
		'for example: make $(firstword $(MAKECMDGOALS)) RECIPE=A' >&2
	@exit 2

.PHONY: runs
runs: $(LIGHT) ## List the runs in BUCKET
	@exec $(WITH_ARGS) $(BIN)/job runs list --bucket "$${BUCKET:-bucket}"

.PHONY: show
show: $(if $(RUN),$(LIGHT),no-run) ## Show RUN: attempts, checkpoints, cost and results
	@exec $(WITH_ARGS) $(BIN)/job runs show "$$RUN" --bucket "$${BUCKET:-bucket}"

.PHONY: resume
resume: $(if $(RUN),$(if $(filter-out gs://%,$(NAMED_BUCKET)),$(ENV),$(CLOUD)),no-run) ## Resume RUN: here, or in the cloud if it was submitted
	@exec $(WITH_ARGS) $(BIN)/job $(if $(NAMED_BUCKET),resume "$$RUN" --bucket "$${BUCKET:-bucket}",supervise "$$RUN" --resume)

.PHONY: stop
stop: $(if $(RUN),$(LIGHT),no-run) ## Ask the running RUN to commit and pause
	@exec $(WITH_ARGS) $(BIN)/job stop "$$RUN" --bucket "$${BUCKET:-bucket}"

.PHONY: extend
extend: $(if $(RUN),$(ENV),no-run) ## Train the finished RUN for more epochs, as a new run: epochs=150
	@exec $(WITH_ARGS) $(BIN)/job extend "$$RUN" --bucket "$${BUCKET:-bucket}"

.PHONY: estimate
estimate: $(if $(RECIPE),$(ENV),no-recipe) ## Estimate time and cost of RECIPE
	@exec $(WITH_ARGS) $(BIN)/job estimate --recipe "$$RECIPE" $(BUCKET_OR_DEMO)

.PHONY: advise
advise: $(LIGHT) ## Recommend the next training after RUN, or after the last one
	@exec $(WITH_ARGS) $(BIN)/job advise $(if $(RUN),"$$RUN") --bucket "$${BUCKET:-bucket}"

.PHONY: compare
compare: $(LIGHT) ## Compare runs: ARGS='zebra zebra2'
	@exec $(WITH_ARGS) $(BIN)/job compare --bucket "$${BUCKET:-bucket}"

.PHONY: report
report: $(if $(RUN),$(LIGHT),no-run) ## Rewrite the report of RUN and open it
	@exec $(WITH_ARGS) $(BIN)/job report "$$RUN" --open --bucket "$${BUCKET:-bucket}"

.PHONY: predict
predict: $(if $(RUN),$(if $(and $(SOURCE),$(OUT)),$(if $(IN),,$(ENV)),no-source),no-run) ## Count objects in the pictures of SOURCE with the model of RUN, into OUT
	@exec $(WITH_ARGS) $(if $(IN),docker/run.sh "$$IMAGE_NAME",$(BIN)/job) predict "$$RUN" "$$SOURCE" --out "$$OUT" \
		--bucket "$${BUCKET:-bucket}"

.PHONY: evaluate
evaluate: $(if $(RUN),$(ENV),no-run) ## Score RUN on its test pictures, with intervals
	@exec $(WITH_ARGS) $(BIN)/job evaluate "$$RUN" --bucket "$${BUCKET:-bucket}"

.PHONY: export
export: $(if $(RUN),$(EXPORT),no-run) ## Export the model of RUN to ONNX, checked against its weights, into OUT or the bucket
	@exec $(WITH_ARGS) $(BIN)/job export "$$RUN" $(if $(OUT),--out "$$OUT") --bucket "$${BUCKET:-bucket}"

.PHONY: audit
audit: $(if $(RUN),$(ENV),no-run) ## List labels that the model of RUN contradicts, on a page with crops
	@exec $(WITH_ARGS) $(BIN)/job audit "$$RUN" $(if $(OUT),--out "$$OUT") --bucket "$${BUCKET:-bucket}"

.PHONY: no-source
no-source:
	@echo 'make predict: SOURCE or OUT is missing; name the pictures and a place for the results,' \
		'for example: make predict RUN=yolov11_wildlife2 SOURCE=flight OUT=found' >&2
	@exit 2

.PHONY: data
data: $(if $(DATA),$(LIGHT),no-data) ## Check the pictures of DATA and push them into BUCKET: ARGS='--dataset wildlife'
	@exec $(WITH_ARGS) $(BIN)/job data push "$$DATA" $(BUCKET_IF_NAMED)

.PHONY: no-data
no-data:
	@echo 'make data: DATA is missing; name your pictures with labels,' \
		"for example: make data DATA=path/to/folder BUCKET=gs://my-bucket ARGS='--dataset wildlife'" >&2
	@exit 2

.PHONY: recipes
recipes: $(LIGHT) ## List the recipes
	@exec $(WITH_ARGS) $(BIN)/job recipes list

##@ Google Cloud: what outlives a job

.PHONY: infra-plan infra-apply infra-destroy infra-test
infra-plan: ## Show the changes that infra-apply would make; needs Terraform and infra/terraform.tfvars
	@exec $(WITH_ARGS) infra/scripts/provision.sh plan

infra-apply: ## Create bucket, registry, identities, network, alerts and the VM's group
	@exec $(WITH_ARGS) infra/scripts/provision.sh apply

infra-destroy: ## Destroy everything but the bucket, whose weights survive
	@exec $(WITH_ARGS) infra/scripts/provision.sh destroy

infra-test: ## Check format and schema, and test the rules; needs Terraform and no cloud
	@exec $(WITH_ARGS) infra/scripts/provision.sh test

.PHONY: boot-image
boot-image: ## Make an image with IMAGE and the GPU driver inside, from which machines start sooner; a Spot machine fills it
	@exec infra/scripts/boot_image.sh

.PHONY: down
down: ## Prove that nothing is left that costs money by the hour; needs gcloud
	@exec infra/scripts/left.sh

##@ Google Cloud: a run on Cloud Batch

.PHONY: preflight
preflight: $(CLOUD) ## Check quotas, rights, image, bucket and data before anything is made; submit and vm-up do too
	@exec $(WITH_ARGS) $(BIN)/job doctor --cloud $(BUCKET_IF_NAMED) $(if $(RECIPE),--recipe "$$RECIPE") \
		$(if $(IMAGE),--image "$$IMAGE")

.PHONY: submit
submit: $(if $(RECIPE),$(CLOUD),no-recipe) ## Submit RECIPE to Cloud Batch on a Spot machine; submitting twice submits once
	@exec $(WITH_ARGS) $(BIN)/job submit --recipe "$$RECIPE" $(BUCKET_IF_NAMED) $(if $(RUN),--run "$$RUN") \
		$(if $(IMAGE),--image "$$IMAGE")

.PHONY: supervise
supervise: $(if $(RUN),$(CLOUD),no-run) ## Resubmit RUN until it is finished, failed for good, or at its limit
	@exec $(WITH_ARGS) $(BIN)/job supervise "$$RUN" $(BUCKET_IF_NAMED)

.PHONY: status
status: $(if $(RUN),$(CLOUD),no-run) ## Show the state, attempts and cost of RUN
	@exec $(WITH_ARGS) $(BIN)/job status "$$RUN" $(BUCKET_IF_NAMED)

.PHONY: logs
logs: $(if $(RUN),$(CLOUD),no-run) ## Print the logs of RUN
	@exec $(WITH_ARGS) $(BIN)/job logs "$$RUN" $(BUCKET_IF_NAMED)

.PHONY: cancel
cancel: $(if $(RUN),$(CLOUD),no-run) ## Cancel the job of RUN; committed checkpoints stay
	@exec $(WITH_ARGS) $(BIN)/job cancel "$$RUN" $(BUCKET_IF_NAMED)

.PHONY: supervisor-image
supervisor-image: ## Build and push the small image of supervise-up to REPOSITORY, and print its digest for IMAGE=
	@docker/build.sh job-supervisor supervisor
	@exec docker/push.sh job-supervisor "$$REPOSITORY" supervisor

.PHONY: supervise-up supervise-down
supervise-up: $(if $(RUN),$(LIGHT),no-run) ## Supervise RUN from the cloud, by IMAGE, until it ends (MAX_USD=, NO_LIMIT=1)
	@exec infra/scripts/supervision.sh up

supervise-down: ## End that supervision; what is submitted goes on
	@exec infra/scripts/supervision.sh down

.PHONY: no-run
no-run:
	@echo 'make $(firstword $(MAKECMDGOALS)): RUN is missing; name the run,' \
		'for example: make $(firstword $(MAKECMDGOALS)) RUN=yolov11_wildlife2' >&2
	@exit 2

##@ Several machines

.PHONY: sky
sky: $(if $(RECIPE),$(if $(and $(BUCKET),$(IMAGE)),,no-image),no-recipe) ## Train RECIPE in IMAGE on NODES=2 Spot machines by SkyPilot, which recovers them; needs sky
	@exec $(WITH_ARGS) sky jobs launch infra/skypilot/train.yaml --num-nodes "$${NODES:-1}" --env RECIPE="$$RECIPE" \
		--env BUCKET="$$BUCKET" --env IMAGE="$$IMAGE" $(if $(RUN),--env RUN="$$RUN")

.PHONY: no-image
no-image:
	@echo 'make $(firstword $(MAKECMDGOALS)): BUCKET or IMAGE is missing; make push prints the IMAGE,' \
		'for example: make $(firstword $(MAKECMDGOALS)) RECIPE=A NODES=2 BUCKET=gs://my-bucket IMAGE=...@sha256:...' >&2
	@exit 2

##@ Rehearse

.PHONY: drill
drill: $(DEV) ## Rehearse the cloud path here: PREEMPTIONS=5 real kills, of one node or NODES=2, then compare the weights
	@exec $(WITH_ARGS) $(BIN)/python -m tests.cloud.drill "$${RECIPE:-A}" "$${PREEMPTIONS:-5}" "$${NODES:-1}"

##@ Google Cloud: a Spot machine that comes back by itself

.PHONY: vm-up vm-status vm-down
vm-up: $(LIGHT) ## Train RECIPE in IMAGE on the Spot VM until it ends or reaches its limit (MAX_USD=, NO_LIMIT=1)
	@exec infra/scripts/machine.sh up

vm-status: ## Show the run of the VM, and errors that kept the VM from starting
	@exec infra/scripts/machine.sh status

vm-down: ## Stop the VM; vm-up resumes its run
	@exec infra/scripts/machine.sh down

##@ Develop

.PHONY: env
env: $(ENV) ## Create the full environment in .venv (7.6 GB on Linux, mostly CUDA)

.PHONY: light
light: $(LIGHT) ## Create the environment without torch (0.4 GB): enough for recipes, runs and data

.PHONY: test
test: $(DEV) ## Run the tests; tests left out are listed at the end
	@exec $(WITH_ARGS) $(BIN)/python -m pytest

.PHONY: test-all
test-all: $(DEV) ## Run all tests, then the storm of N=200; docs/test-all.md has the last result
	$(WITH_ARGS) $(BIN)/python -m pytest --full
	$(BIN)/python -m tests.integration.kill_storm "$${N:-200}"

.PHONY: gpu-test
gpu-test: $(DEV) ## Run the tests that need an NVIDIA GPU; ARGS='--full' all, ARGS='--on-cpu' a rehearsal
	@exec $(WITH_ARGS) $(BIN)/python -m pytest -n0 tests/gpu

.PHONY: gpu-bench
gpu-bench: $(DEV) ## Measure on an NVIDIA GPU, beside stock Ultralytics, into gpu-bench.json
	@exec $(WITH_ARGS) $(BIN)/python -m tests.bench.gpu

.PHONY: check
check: $(DEV) ## Check format, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

.PHONY: format
format: $(DEV) ## Format, and apply automatic fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: bench
bench: $(DEV) ## Measure, beside stock Ultralytics and Google's transfer library
	@$(BIN)/python -m tests.bench.pull
	@$(BIN)/python -m tests.bench.loading
	@$(BIN)/python -m tests.bench.decoding
	@$(BIN)/python -m tests.bench.prediction
	@$(BIN)/python -m tests.bench.snapshot
	@$(BIN)/python -m tests.bench.start
	@exec $(WITH_ARGS) $(BIN)/python -m tests.bench.training

.PHONY: bench-tiles
bench-tiles: $(DEV) ## Compare recipe T with A after equal seconds of training; fetches photographs (21 MB)
	@exec $(WITH_ARGS) $(BIN)/python -m tests.bench.tiles

.PHONY: bench-scale
bench-scale: $(LIGHT) ## Reckon dollars and requests by machines, attempts and images, without a cloud
	@exec $(WITH_ARGS) $(BIN)/python -m tests.bench.scale

.PHONY: kill-storm
kill-storm: $(DEV) ## Disturb small trainings N times in every way, and compare how they end (N=200 takes 40 minutes)
	@exec $(BIN)/python -m tests.integration.kill_storm "$${N:-200}"

.PHONY: lock
lock: $(VENV)/.installed-dev ## Rewrite requirements/*.txt from pyproject.toml; ARGS=--upgrade takes newer versions
	$(LOCK) pyproject.toml --extra train --group build --group headless --output-file requirements/full.txt
	$(LOCK) pyproject.toml --group build --group headless --constraints requirements/full.txt \
		--output-file requirements/light.txt
	$(LOCK) pyproject.toml --extra cloud --group build --group headless --constraints requirements/full.txt \
		--output-file requirements/cloud.txt
	$(LOCK) pyproject.toml --extra export --group build --group headless --constraints requirements/full.txt \
		--output-file requirements/export.txt
	$(LOCK) --group dev --group build --constraints requirements/full.txt --output-file requirements/dev.txt

.PHONY: clean
clean: ## Remove the environment and every cache; never a run
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find job tests -name __pycache__ -prune -exec rm -rf {} +

# Stamps are written last: an install that was killed is taken up again.

# Refused before anything is fetched: a Python out of range, or one that cannot make an environment. Any Python reads this.
define FITNESS
import sys
version = "%d.%d" % sys.version_info[:2]
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("make: %s is Python %s, not 3.11, 3.12 or 3.13" % (sys.executable, version))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("make: %s has no venv; Debian and Ubuntu have it in python%s-venv" % (sys.executable, version))
endef
define ADVICE
make: install one
  Debian 12 and 13, Ubuntu 24.04  apt install python3-venv
  Fedora                          dnf install python3.13
  others                          uv python install 3.13
and name it if it is not found: make env PYTHON=/path/to/python3.13
endef
export FITNESS ADVICE

$(VENV)/.created:
	@$(or $(PYTHON),python3) -c "$$FITNESS" || { echo "$$ADVICE" >&2; exit 78; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# One level of the environment: light (no torch), full, or dev (the tools). Of what pip says, the long downloads are shown;
# while it unpacks, of which it says nothing, the size of the environment grows.
$(VENV)/.installed-%: requirements/%.txt pyproject.toml $(VENV)/.created
	@echo "installing $$(grep -c == $<) packages of $<"
	@rm -f $@
	@{ $(PIP) --only-binary :all: --require-hashes -r $< && $(PIP) --no-build-isolation -e . && touch $@; } \
	| { while read -r word file size; do case "$$word $$size" in \
		'Downloading ('[0-9][0-9]*' MB)') echo "  downloading $${file%%-[a-z]*} $$size" ;; \
		Installing*,*) echo '  unpacking'; \
			while sleep 5 </dev/null >/dev/null 2>&1 && kill -0 $$$$ 2>/dev/null; do \
				echo "  unpacked $$(($$(du -sk $(VENV) | cut -f1) / 1000)) MB"; \
			done & counting=$$! ;; \
		esac; done; test -z "$$counting" || kill $$counting; }
	@test -e $@
