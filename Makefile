# The one entry for people and for CI. `make help` lists what there is.

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

# ARCH=amd64, arm64 or armv7: build for other machines than this one. Needs Rust's target and Debian's cross compiler.
TARGET_amd64 := x86_64-unknown-linux-gnu
TARGET_arm64 := aarch64-unknown-linux-gnu
TARGET_armv7 := armv7-unknown-linux-gnueabihf
TARGET := $(if $(ARCH),$(or $(TARGET_$(ARCH)),$(error ARCH is amd64, arm64 or armv7, not $(ARCH))),$(HOST))
ifneq ($(TARGET),$(HOST))
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER ?= x86_64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER ?= aarch64-linux-gnu-gcc
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER ?= arm-linux-gnueabihf-gcc
endif

# Where the static programs land. They are built with crt-static rather than for musl, so that no further target has
# to be installed.
PROGRAMS := $(CURDIR)/target/$(TARGET)/release
export ARPEGGIO_PROGRAMS := $(PROGRAMS)

# Where the images land, and the licences that go into them. Those for each processor have a folder, named as `uname -m` names it
# there: all have the same name inside, and of two that are loaded the later one counts.
MACHINE := $(patsubst armv7,armv7l,$(firstword $(subst -, ,$(TARGET))))
IMAGES := $(CURDIR)/target/images/$(MACHINE)
LICENCES := $(CURDIR)/target/licences/$(TARGET)
export ARPEGGIO_IMAGES := $(IMAGES)

# The licences of what is linked in and is no package of cargo's: Rust's own library and glibc, where Debian has them.
LIBRARY_LICENCES ?= $(shell rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html \
	/usr/share/doc/libc6/copyright /usr/share/common-licenses/LGPL-2.1

# The commit, as programs and images tell it. Empty where there is no git.
REVISION ?= $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)

# Everything is built with the whole workspace selected, and what is wanted of it by its name: what several programs or tests
# depend on has the same features in all, and is compiled once for programs and once for tests.
STATIC := ARPEGGIO_REVISION="$(REVISION)" RUSTFLAGS="-C target-feature=+crt-static"
STATIC_BUILD := $(STATIC) cargo build --workspace --release --locked --target
TESTS := cargo test --workspace --locked
SCENARIOS := $(TESTS) --test scenarios --

DEMO := $(PROGRAMS)/arpeggio-demo

.DEFAULT_GOAL := help
.PHONY: help demo lab clean-lab test test-all test-rest check lint unit manifests supply advisories docs lab-tests vagrant-files krew-manifest scenarios oldest-kubernetes skew earlier programs-of-others model failures bench bench-wire bench-failover bench-controller bench-api bench-forwarder bench-programs demo-program vm-tests soak explore fuzz generate krew man setup toolchain rust programs images clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup demo-program ## Run the demo: a real cluster, a power cut, and what a client saw (KEEP=1 leaves it running)
	@$(DEMO) run

lab: setup demo-program ## Start a cluster with Arpeggio, leave it running and say how to use it (NODES=n)
	@$(DEMO) lab

clean-lab: rust ## Remove every lab of this machine, also what dead ones left
	@$(STATIC_BUILD) $(TARGET) --bin arpeggio-lab
	@$(PROGRAMS)/arpeggio-lab down --all

test: setup images unit manifests ## Run the tests: pure ones, kernel ones, and each part once on real clusters
	ARPEGGIO_SCENARIOS=quick $(SCENARIOS)

test-all: test test-rest ## Run all tests: also every fault and every shape of cluster

test-rest: setup images earlier programs-of-others vagrant-files krew-manifest model vm-tests lab-tests
	ARPEGGIO_SCENARIOS=rest $(SCENARIOS)

vagrant-files: setup
	@tests/lab/setup.sh tests/vagrant-packages.txt
	tests/vagrant.sh

krew-manifest: toolchain
	tests/krew.sh

check: lint unit manifests supply ## What to run before each commit: format, clippy, docs, unit tests, generated files, licences

# What others read is checked where they read it.
SCRIPTS = $(shell find .github manifests tests vagrant -name '*.sh' ! -name go-build.sh) .ci/run

lint: toolchain
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo clippy --workspace --test '*' --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
	test -z "$$(gofmt -l tests/cluster tests/cluster-oldest tests/helm tests/ingress tests/streams)"
	@command -v shellcheck >/dev/null || { echo "shellcheck is missing: run 'make setup', or install it" >&2; exit 1; }
	shellcheck $(SCRIPTS)
	$$(tests/actionlint/build.sh)/actionlint

# The same random cases each time, so that a commit that passes once passes again. `make explore` looks for new ones.
unit: export PROPTEST_RNG_SEED ?= 1
unit: export FUZZ_SEED ?= 1
# Tests with a kernel wait more than they work.
unit: export RUST_TEST_THREADS ?= $(shell expr 2 '*' $$(nproc))
unit:
	$(TESTS) --quiet --no-fail-fast

# What it finds is written beside the test (*.proptest-regressions), and tried first from then on.
CASES ?= 5000

explore: ## Try random cases that nobody has tried, of every property (CASES=n of each)
	PROPTEST_CASES=$(CASES) $(TESTS) --test histories --test model
	PROPTEST_CASES=$(CASES) $(TESTS) --lib -- simulation spread versions schema

manifests: toolchain
	@command -v promtool >/dev/null || { echo "promtool is missing: make setup, or Debian's package prometheus" >&2; exit 1; }
	$(TESTS) --test manifests --quiet

# Known vulnerabilities are not asked for here: that takes a database from the network, see advisories.
supply: toolchain ## Check what is linked in: licences, and where it comes from (deny.toml)
	$$(tests/rust-tool.sh cargo-deny 0.20.2) check licenses bans sources

advisories: toolchain ## Look for known vulnerabilities in what is linked in (fetches the database of rustsec.org)
	$$(tests/rust-tool.sh cargo-deny 0.20.2) check advisories

docs: rust ## Write the documentation as a site to target/docs
	$$(tests/rust-tool.sh mdbook 0.5.4) build

# What takes half a minute of a processor and more. The other histories are a part of `make unit`. So is what a decision may take, but what is
# promised of that holds of programs that are optimised.
model: ## Check every history with two faults of the wire, of processes, or of the API server and the wire, and what a decision takes in a large cluster (in make test-all, too)
	$(TESTS) --test cluster --quiet -- --ignored
	$(TESTS) --release --test headroom --quiet

# One after the other: each starts clusters, and this may be a small machine.
lab-tests:
	$(TESTS) --test lab -- --test-threads=1

# In machines of QEMU: without /dev/kvm they take some minutes.
vm-tests: setup ## Run the tests that need devices which this kernel may lack, on Debian's kernels in QEMU (SUITE=bookworm for one; in make test-all, too)
	@tests/lab/setup.sh tests/machines/packages.txt
	tests/machines/run.sh $(SUITE)

scenarios: ## Run the end-to-end tests only (ONLY=name runs those with this name; after make setup images)
	$(SCENARIOS) $(ONLY)

# What fails once in twenty runs is found at night. It goes on after a failure, and keeps the evidence.
HOURS ?= 8

soak: setup images earlier programs-of-others ## Run all end-to-end tests again and again, and say how often each failed (HOURS=n, 8 by default; ONLY=name)
	ARPEGGIO_SOAK_HOURS=$(HOURS) $(SCENARIOS) $(ONLY)

oldest-kubernetes: setup programs ## Show that Arpeggio works with the oldest Kubernetes that it supports (1.29; in make test-all, too)
	$(SCENARIOS) oldest-kubernetes

skew: setup programs earlier ## Run this release's controller and speakers beside those of an earlier commit (in make test-all, too)
	$(SCENARIOS) two-versions

# Beforehand, so that it is not counted as a scenario's time.
programs-of-others: toolchain
	@for folder in external-dns ingress kafka oauth2-proxy streams; do tests/$$folder/build.sh >/dev/null || exit 1; done

# After the programs of this release, so that what both depend on is compiled once.
earlier: rust programs
	@tests/earlier.sh >/dev/null

# Those in which a client looks on while something fails or moves.
WATCHED := fault local two-versions

failures: setup demo-program earlier ## Run the failure tests without and with the forwarder, and write docs/failures.md from what a client saw
	@rm -rf target/failures
	failed=; export ARPEGGIO_STREAMS=1; \
	for scenario in $(WATCHED); do \
		$(SCENARIOS) --test-threads 1 $$scenario || failed="$$failed $$scenario"; \
		ARPEGGIO_WITH_FORWARDER=1 $(SCENARIOS) --test-threads 1 $$scenario || failed="$$failed $$scenario with the forwarder"; \
	done; \
	$(DEMO) failures || failed="$$failed, and rows are missing"; \
	[ -z "$$failed" ] || { echo "failed:$$failed. docs/failures.md has what was seen." >&2; exit 1; }

bench: bench-wire bench-failover bench-controller bench-api bench-forwarder ## Run all measurements (JSON lines in target/bench)

bench-wire: setup bench-programs ## Measure answers beside the kernel's and MetalLB's (PARTS=latency,...)
	@$(DEMO) bench-wire

bench-failover: setup bench-programs ## Measure failovers beside keepalived and MetalLB (PARTS=crash,..., CRASHES=n, MINUTES=n)
	@$(DEMO) bench-failover

bench-controller: setup bench-programs ## Measure the controller beside MetalLB's (COUNT=n Services, 10,000 by default)
	@$(DEMO) bench-controller

bench-api: setup bench-programs ## Measure what speakers at rest cost the API server (MANY_NODES=n, 200 by default)
	@$(DEMO) bench-api

bench-forwarder: rust ## Measure what the forwarder costs (PARTS=latency,load,many)
	@mkdir -p target/bench
	@$(STATIC) cargo bench --workspace --locked --target $(TARGET) --bench cost >target/bench/forwarder.jsonl
	@cat target/bench/forwarder.jsonl

bench-programs: demo-program
	@tests/peers/build.sh >/dev/null

# A short run of the same targets is part of `make unit` and needs nothing.
FUZZ_SECONDS ?= 60
FUZZ := tests/fuzz/libfuzzer

fuzz: toolchain ## Feed all parsers what nobody thought of (FUZZ_SECONDS=n for each; needs cargo-fuzz, nightly)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz, then run this again" >&2; exit 1; }
	@for target in $$(ls tests/fuzz/seeds); do \
		mkdir -p $(FUZZ)/corpus/$$target; \
		cargo +nightly fuzz run --fuzz-dir $(FUZZ) $$target $(FUZZ)/corpus/$$target tests/fuzz/seeds/$$target \
			-- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

generate: setup ## Write again what is generated (custom resource definitions, manifests/install.yaml, docs/cli.md, what the chart takes from elsewhere, the tables of docs/wire.md)
	UPDATE_GENERATED=1 $(TESTS) --test generated --quiet
	UPDATE_GENERATED=1 $(TESTS) --bin arpeggio-speaker --quiet table
	UPDATE_GENERATED=1 $(TESTS) --bin arpeggio --quiet reference
	UPDATE_GENERATED=1 $(TESTS) --test manifests --quiet up_to_date

setup: toolchain
	@tests/lab/setup.sh

rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install rustup, then run this again" >&2; exit 1; }

toolchain: rust
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or later, then run this again" >&2; exit 1; }

programs: rust
	@echo "programs: building Arpeggio (static, release; some minutes the first time)" >&2
	@$(STATIC_BUILD) $(TARGET) --bin arpeggio-controller --bin arpeggio-speaker --bin arpeggio-forwarder --bin arpeggio

# Built like the programs that it runs: what both depend on is compiled once, and a client in debug mode would be what a
# benchmark waits for.
demo-program: programs
	@$(STATIC_BUILD) $(TARGET) --bin arpeggio-demo

# Runs here, also where the programs are for other machines.
IMAGE_WRITER := $(CURDIR)/target/$(HOST)/release/arpeggio-images

# Archives of other versions go: what loads the archives loads all that are there.
images: programs ## Write the images as archives to target/images, a folder for each processor (ARCH=arm64 or armv7: for other machines)
	@rm -rf $(LICENCES)
	@mkdir -p $(IMAGES) && find $(IMAGES) -name 'arpeggio-*' ! -name 'arpeggio-*-$(VERSION)-*' -delete
	@$(STATIC_BUILD) $(HOST) --bin arpeggio-images
	@$(IMAGE_WRITER) licences --target $(TARGET) \
		$(LIBRARY_LICENCES:%=--also %) $(LICENCES)
	@$(IMAGE_WRITER) write --programs $(PROGRAMS) --target $(TARGET) \
		--licences $(LICENCES) --revision "$(or $(REVISION),unknown)" $(SOURCE:%=--source %) $(IMAGES)

# RELEASE: where the archive will be downloaded from. HOMEPAGE: where people read about it.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
KREW := target/krew

krew: images ## Write the krew plugin to target/krew (RELEASE=https://..., HOMEPAGE=https://...)
	@rm -rf $(KREW) && mkdir -p $(KREW)
	@.github/release/bundle.sh $(PROGRAMS)/arpeggio $(LICENCES) $(KREW)/arpeggio-$(VERSION)-linux-$(or $(ARCH),amd64).tar.gz
	@manifests/krew/manifest.sh $(VERSION) $(or $(RELEASE),$(error say where it will be: RELEASE=https://...)) \
		$(or $(HOMEPAGE),$(RELEASE)) $(KREW) >$(KREW)/arpeggio.yaml
	@echo "the archive and the manifest are in $(KREW)" >&2

man: programs ## Write the manual pages to target/man
	@$(PROGRAMS)/arpeggio man --dir $(CURDIR)/target/man

clean: ## Remove what was built here (the cluster program stays in the user's cache)
	cargo clean
