# Builds, tests, checks and installs sluice. `make help` lists the targets; `make V=1` shows the whole commands.
#
#   MODE      release (default), debug, asan, ubsan, tsan, cov, fuzz; each has its own directory below build/
#   CC        gcc (default) or clang
#   WERROR    1 makes warnings errors: the default in every mode but release, where a newer compiler
#             than ours must not keep anybody from building
#   FILTER    only the tests that match, as in FILTER='flow/*'
#   BUILD     where everything that is made goes (default build)
#   CFLAGS, CPPFLAGS, LDFLAGS, LDLIBS   the packager's own: they follow ours, so they win

MAKEFLAGS += --no-builtin-rules --no-builtin-variables --no-print-directory
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

ifneq ($(filter default undefined,$(origin CC)),)
CC := gcc
endif
AR ?= ar
ifneq ($(filter default undefined,$(origin AR)),)
AR := ar
endif
MODE ?= release
WERROR ?= $(if $(filter release,$(MODE)),0,1)
BUILD ?= build
PREFIX ?= /usr/local
OUT := $(BUILD)/$(MODE)
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-5s %s\n' '$1' '$2')
comma := ,

# ---- Flags -------------------------------------------------------------------------------------------------

# Both compiling and linking need these.
FLAGS_release := -O2 -g
FLAGS_debug := -O1 -g -DSLUICE_DEBUG=1
FLAGS_asan := $(FLAGS_debug) -fsanitize=address -fno-omit-frame-pointer
FLAGS_ubsan := $(FLAGS_debug) -fsanitize=undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAGS_tsan := $(FLAGS_debug) -fsanitize=thread -fno-omit-frame-pointer
FLAGS_cov := -O0 -g -DSLUICE_DEBUG=1 --coverage -Wl,-u,__gcov_dump
# Only clang has libFuzzer.
FLAGS_fuzz := $(FLAGS_debug) -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
# What guides it is what it reaches of the product, and not of the tests' own kernels.
UNGUIDED_fuzz := -fno-sanitize=fuzzer-no-link
ifeq ($(FLAGS_$(MODE)),)
$(error MODE=$(MODE) is not one of release, debug, asan, ubsan, tsan, cov, fuzz)
endif
LANG_FLAGS := -std=gnu11 -D_GNU_SOURCE -Iinclude

# What we ask for; what this compiler has of it is found out once and kept in flags.mk.
WARN_BASE := -Wall -Wextra -Wformat=2 -Werror=format-security -Werror=implicit -Werror=int-conversion \
	-Werror=incompatible-pointer-types -Wimplicit-fallthrough -Wshadow -Wstrict-prototypes -Wpointer-arith \
	-Wcast-align -Wcast-align=strict -Wvla -Walloca -Wundef -Wswitch-enum -Wenum-conversion -Wlogical-op \
	-Wduplicated-cond -Wtrampolines -Wbidi-chars=any -Wwrite-strings -Wredundant-decls -Wold-style-definition
# Tests do without these: a --wrap seam has no prototype, and byte patterns would drown in casts.
# string-conversion is part of clang's -Wconversion and forbids CHECK(!"why this cannot be").
WARN_STRICT := -Wconversion -Wsign-conversion -Wmissing-prototypes -Wcast-qual -Wduplicated-branches \
	-Wnull-dereference -Wno-string-conversion
# Instrumentation adds paths that no program takes, and gcc warns of those.
WARN_INSTRUMENTED := $(if $(filter asan ubsan tsan cov,$(MODE)),-Wno-null-dereference -Wno-maybe-uninitialized)
# A packager's choice of _FORTIFY_SOURCE must not be defined twice.
FORTIFY := $(if $(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
HARDEN_CC := -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
	-ftrivial-auto-var-init=zero -fno-delete-null-pointer-checks -fno-strict-overflow -fno-strict-aliasing \
	-fstrict-flex-arrays=3
HARDEN_LD := -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,nodlopen -Wl,-z,separate-code \
	-Wl,--as-needed -Wl,--no-copy-dt-needed-entries

COMPILE = $(CC) $(LANG_FLAGS) $(FLAGS_$(MODE)) $(HARDEN_CC_OK) $(if $(filter 1,$(WERROR)),-Werror) -MMD -MP
LINK = $(CC) $(FLAGS_$(MODE)) $(CFLAGS) $(HARDEN_LD_OK) $(LDFLAGS)
# Looked up when first used, so that building the program does not need Criterion.
CRITERION = $(eval CRITERION := $$(shell pkg-config --cflags --libs criterion))$(CRITERION)

# ---- Files -------------------------------------------------------------------------------------------------

LIB := $(OUT)/libsluice.a
LIB_SRC := $(sort $(wildcard src/*/*.c))
SUPPORT_SRC := $(sort $(wildcard tests/support/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/*.c tests/unit/*/*.c tests/unit/*/*/*.c))
SIM_SRC := $(sort $(wildcard tests/sim/*.c))
# Suites that start the real program: common cases, the generated close matrix, what needs a network of its own.
DRIVING := integration matrix net
driving_src = $(sort $(wildcard tests/$1/*.c))
RUNNER_SRC := $(sort $(wildcard tests/runner/*.c))
# Every test program has the common part; only the unit tests have the fault seam in support/unit.
COMMON_SRC := $(sort $(wildcard tests/runner/common/*.c))
UNIT_ALL_SRC := $(UNIT_SRC) $(COMMON_SRC) $(SUPPORT_SRC) $(sort $(wildcard tests/support/unit/*.c))
DRIVING_ALL_SRC := $(foreach suite,$(DRIVING),$(call driving_src,$(suite))) $(COMMON_SRC) $(SUPPORT_SRC)
SIM_ALL_SRC := $(SIM_SRC) $(COMMON_SRC) tests/support/stream.c
# Each source of tests/fuzz is a program. Two bring a kernel: a small one of their own, and that of the simulation.
FUZZ_SRC := $(sort $(wildcard tests/fuzz/*.c))
FUZZ_COMMON_SRC := $(sort $(wildcard tests/fuzz/common/*.c))
FUZZ_MODEL_SRC := $(sort $(wildcard tests/fuzz/model/*.c))
FUZZ_SIM_SRC = $(shell grep -L criterion $(SIM_SRC) /dev/null | grep -v /dev/null) tests/support/stream.c
FUZZ := $(patsubst tests/fuzz/%.c,$(OUT)/tests/fuzz/%,$(FUZZ_SRC))
object = $(patsubst %.c,$(OUT)/obj/%.o,$1)

# A bench source with a header of its own is shared by the programs, each other one is a program.
# Only a release bench measures anything, so it has the short path.
BENCH_OUT := $(if $(filter release,$(MODE)),$(BUILD),$(OUT))/bench
BENCH_SRC := $(sort $(wildcard bench/*.c))
BENCH_SHARED_SRC := $(filter $(patsubst %.h,%.c,$(wildcard bench/*.h)),$(BENCH_SRC))
BENCH := $(patsubst bench/%.c,$(BENCH_OUT)/%,$(filter-out $(BENCH_SHARED_SRC),$(BENCH_SRC)))
TESTS := $(if $(UNIT_SRC),$(OUT)/tests/unit) $(if $(SIM_SRC),$(OUT)/tests/sim) \
	$(foreach suite,$(DRIVING),$(if $(call driving_src,$(suite)),$(OUT)/tests/$(suite)))
RUNNER := $(patsubst tests/runner/%.c,$(OUT)/tests/runner/%,$(RUNNER_SRC))
STATIC_SRC := $(LIB_SRC) $(wildcard src/main.c)
FORMATTED = $(shell find src include tests bench -name '*.[ch]' 2>/dev/null | sort)

# ---- What makes everything stale ---------------------------------------------------------------------------

# A stamp is rewritten, while this file is read, only when its text changes: no process on the way.
same = $(and $(findstring x$1x,x$2x),$(findstring x$2x,x$1x))
stamp = $(if $(call same,$(file <$1),$2),,$(shell mkdir -p $(dir $1))$(file >$1,$2))

# These goals compile nothing themselves: no probing for them.
NO_COMPILE := help clean format check check-style check-layers check-size test test-unit test-integration test-matrix \
	test-net sim fuzz fuzz-replay fuzz-merge soak test-valgrind coverage mutants mutants-check \
	bench bench-quick bench-check bench-smoke bench-scale bench-profile
ifneq ($(filter-out $(NO_COMPILE),$(or $(MAKECMDGOALS),all)),)
CC_VERSION := $(shell $(CC) --version 2>/dev/null | head -n 1)
COMMAND := $(CC) $(CC_VERSION) $(WERROR) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(LDLIBS)
$(call stamp,$(OUT)/command.stamp,$(COMMAND))
# A deleted source must also leave the archive and the test programs.
$(call stamp,$(OUT)/sources.stamp,$(LIB_SRC) $(UNIT_ALL_SRC) $(SIM_ALL_SRC) $(DRIVING_ALL_SRC))
include $(OUT)/flags.mk
endif

$(OUT)/flags.mk: Makefile $(OUT)/command.stamp
	$(call say,PROBE,$(CC) ($(MODE)))
	@command -v $(firstword $(CC)) >/dev/null || \
		{ echo "There is no compiler '$(CC)' here: run tools/deps.sh build" >&2; exit 1; }
	@: 'gcc takes any -Wno-x and complains later, so -Wx is what is tried'; \
	having() { \
		how=$$1; shift; \
		for flag; do \
			case $$flag in -Wno-*) try=-W$${flag#-Wno-} ;; *) try=$$flag ;; esac; \
			echo 'int main(void) { return 0; }' | \
			$(CC) -Werror -Wall $$try -x c - $$how -o $@.probe 2>/dev/null && printf ' %s' "$$flag"; \
		done; \
	}; \
	{ \
		echo "WARN_BASE_OK :=$$(having -c $(WARN_BASE))"; \
		echo "WARN_STRICT_OK :=$$(having -c $(WARN_STRICT))"; \
		echo "WARN_INSTRUMENTED_OK :=$$(having -c $(WARN_INSTRUMENTED))"; \
		$(if $(filter release,$(MODE)), \
		echo "HARDEN_CC_OK := $(FORTIFY)$$(having -c $(HARDEN_CC))"; \
		echo "HARDEN_LD_OK :=$$(having -fPIE $(HARDEN_LD))";) \
	} >$@; rm -f $@.probe

# ---- The program -------------------------------------------------------------------------------------------

.PHONY: all tests runner-tests fuzz-programs
all: $(OUT)/sluice $(BENCH) $(if $(filter release,$(MODE)),$(BUILD)/sluice) ## Build sluice and the bench programs

$(OUT)/obj/tests/%.o: tests/%.c $(OUT)/flags.mk
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(UNGUIDED_$(MODE)) -Itests $(WARN_BASE_OK) $(WARN_INSTRUMENTED_OK) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

$(OUT)/obj/%.o: %.c $(OUT)/flags.mk
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(WARN_BASE_OK) $(WARN_STRICT_OK) $(WARN_INSTRUMENTED_OK) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

$(LIB): $(call object,$(LIB_SRC)) $(OUT)/sources.stamp
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(OUT)/sluice: $(OUT)/obj/src/main.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(LINK) $^ $(LDLIBS) -o $@

# Moved into place: a program that is running cannot be written to.
$(BUILD)/sluice: $(BUILD)/release/sluice
	@cp $< $@.new && mv -f $@.new $@

$(BENCH): $(BENCH_OUT)/%: $(OUT)/obj/bench/%.o $(call object,$(BENCH_SHARED_SRC))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $^ $(LDLIBS) -lm -o $@

# ---- Tests -------------------------------------------------------------------------------------------------

tests: $(OUT)/sluice $(TESTS)
	@:

runner-tests: $(RUNNER)
	@:

fuzz-programs: $(FUZZ)
	@:

$(OUT)/tests/unit: $(call object,$(UNIT_ALL_SRC)) $(LIB) $(OUT)/sources.stamp $(wildcard tests/support/wrap.list)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(filter %.o %.a,$^) \
		$(patsubst %,-Wl$(comma)--wrap=%,$(shell sed 's/#.*//' tests/support/wrap.list 2>/dev/null)) \
		$(CRITERION) $(LDLIBS) -lm -o $@

# Its model kernel defines what net/sys.o and base/clock.o do, so the linker leaves those in the archive.
$(OUT)/tests/sim: $(call object,$(SIM_ALL_SRC)) $(LIB) $(OUT)/sources.stamp
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(filter %.o %.a,$^) $(CRITERION) $(LDLIBS) -o $@

define driving_rule
$(OUT)/tests/$1: $(call object,$(call driving_src,$1) $(COMMON_SRC) $(SUPPORT_SRC)) $(LIB) $(OUT)/sources.stamp
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(LINK) $$(filter %.o %.a,$$^) $$(CRITERION) $$(LDLIBS) -lm -o $$@
endef
$(foreach suite,$(DRIVING),$(eval $(call driving_rule,$(suite))))

# Libraries that tests preload into sluice; no sanitizer, since they stand in front of it.
SHIMS := $(patsubst tests/shims/%.c,$(OUT)/tests/shims/%.so,$(wildcard tests/shims/*.c))
$(OUT)/tests/net: | $(SHIMS)

$(SHIMS): $(OUT)/tests/shims/%.so: tests/shims/%.c $(OUT)/flags.mk
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LANG_FLAGS) $(WARN_BASE_OK) -O1 -g -fPIC -shared $< -o $@

SOAK_SRC := $(sort $(wildcard tests/soak/*.c)) tests/support/stream.c
SOAK_LOAD := $(BUILD)/release/tests/soak-load

ifeq ($(MODE),release)
$(SOAK_LOAD): $(call object,$(SOAK_SRC))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $^ $(LDLIBS) -o $@
endif

$(RUNNER): $(OUT)/tests/runner/%: $(OUT)/obj/tests/runner/%.o $(call object,$(COMMON_SRC))
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) $^ $(CRITERION) $(LDLIBS) -o $@

$(FUZZ): $(OUT)/tests/fuzz/%: $(OUT)/obj/tests/fuzz/%.o $(call object,$(FUZZ_COMMON_SRC)) $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -fsanitize=fuzzer $(filter %.o,$^) $(LIB) $(LDLIBS) -o $@

$(OUT)/tests/fuzz/flow: $(call object,$(FUZZ_MODEL_SRC))
$(OUT)/tests/fuzz/sessions: $(call object,$(FUZZ_SIM_SRC))

# A MODE that was asked for is the one to test in.
MODE_GIVEN := $(filter command environment,$(firstword $(origin MODE)))
# exec, so that a signal meets the script and not a shell in front of it; + because the script runs make.
RUN_TESTS = exec env MAKE='$(MAKE)' BUILD='$(BUILD)' FILTER='$(FILTER)' tools/test.sh

.PHONY: test test-unit test-integration test-matrix test-net test-tools soak run fuzz fuzz-replay fuzz-merge
test: ## Run all tests in debug, asan and ubsan (or in MODE=...; FILTER='flow/*')
	@tools/deps.sh build test
	+@$(RUN_TESTS) --self-test
	+@$(RUN_TESTS) $(if $(MODE_GIVEN),$(MODE),debug asan ubsan)

test-unit: ## Run the unit tests in debug (or in MODE=...)
	+@$(RUN_TESTS) --suite unit $(if $(MODE_GIVEN),$(MODE),debug)

test-integration: ## Run the integration tests in debug (or in MODE=...)
	+@$(RUN_TESTS) --suite integration $(if $(MODE_GIVEN),$(MODE),debug)

test-matrix: ## Run the close matrix in debug (or in MODE=...; CELL=client:rst:mid-up:... for one cell)
	+@$(RUN_TESTS) --suite matrix $(if $(MODE_GIVEN),$(MODE),debug)

test-net: ## Run the tests in networks of their own, as root, in debug (or in MODE=...)
	@tools/deps.sh build test net
	+@$(RUN_TESTS) --suite net $(if $(MODE_GIVEN),$(MODE),debug)

test-valgrind: ## Run some integration tests with sluice under valgrind: memory, descriptors (or FILTER='reset/*')
	@tools/deps.sh build test valgrind
	+@exec env MAKE='$(MAKE)' BUILD='$(BUILD)' FILTER='$(FILTER)' tools/valgrind.sh

test-tools: all ## Run real programs through sluice: curl, nginx, redis, PostgreSQL, rsync, git...
	@exec env SLUICE_BIN='$(OUT)/sluice' ORIGIN_BIN='$(BENCH_OUT)/origin' tests/tools/run.sh

# The load is always a release build, whatever is soaked: it must not be the bottleneck.
soak: ## Put T=60 seconds (or hours) of mixed load and trouble on it; RESULT=DIR for the plot, RATE, SEED
	@tools/deps.sh build soak
	@$(MAKE) --silent MODE=release $(SOAK_LOAD)
	@$(MAKE) --silent MODE=$(MODE) $(OUT)/sluice
	@exec python3 -B tests/soak/soak.py --sluice '$(OUT)/sluice' --load '$(SOAK_LOAD)' --mode '$(MODE)' \
		--work '$(BUILD)/soak/work' --result '$(or $(RESULT),$(BUILD)/soak)' --seconds '$(or $(T),60)' \
		--rate '$(or $(RATE),100)' --seed '$(or $(SEED),1)'

# What is measured is always a release build. Peers that are not installed are left out. For a part of it, another
# build of sluice, more rounds: bench/bench.py --help.
RUN_BENCH = tools/deps.sh build bench && $(MAKE) --silent MODE=release all && \
	exec python3 bench/bench.py --build '$(BUILD)'

.PHONY: bench bench-quick bench-check bench-smoke
bench: ## Compare what forwarding costs with haproxy, nginx and socat: bench/RESULTS.md, 50 minutes
	+@$(RUN_BENCH)

bench-quick: ## The main columns of it in two minutes; prints them, writes nothing
	+@$(RUN_BENCH) --quick

bench-smoke: ## Every workload and forwarder once, for a moment: does the benchmark run? A minute
	+@$(RUN_BENCH) --smoke
	@exec python3 -B bench/scale.py --build '$(BUILD)' --connections 2000

bench-check: ## Compare with the newest of bench/results: fails when sluice costs more than then
	+@$(RUN_BENCH) --check

.PHONY: bench-scale bench-profile
bench-scale: ## Hold 50,000 connections at once and look what they cost: bench/results/scale.json, half a minute
	@tools/deps.sh build bench
	+@$(MAKE) --silent MODE=release all && exec python3 bench/scale.py --build '$(BUILD)'

bench-profile: ## Where the CPU time of sluice goes, beside that of bare: bench/results/profile.md; as root, with perf
	@tools/deps.sh build bench
	+@$(MAKE) --silent MODE=release all && exec python3 bench/profile.py --build '$(BUILD)'

# TRACE and TRACES are of the test that compares the simulation's kernel with the real one.
sim: FILTER := $(or $(FILTER),$(if $(TRACES)$(TRACE),model/*generated*,$(if $(SEEDS)$(SEED),simulation/*)))
sim: ## Run the simulation in debug (SEEDS=1000000 for a long run, SEED=4711 for one again; TRACES, TRACE)
	+@$(if $(SEEDS)$(SEED)$(TRACES)$(TRACE),TIMEOUT=86400 SUITE_TIMEOUT=86400 \
		SEEDS='$(SEEDS)' SEED='$(SEED)' TRACES='$(TRACES)' TRACE='$(TRACE)') \
		$(RUN_TESTS) --suite sim $(if $(MODE_GIVEN),$(MODE),debug)

# T: seconds for each target. TARGET: names, default all of them.
RUN_FUZZ = exec env MAKE='$(MAKE)' BUILD='$(BUILD)' T='$(T)' tools/fuzz.sh

fuzz: ## Fuzz each target for 60 s (T=3600 for longer, TARGET='flow addresses' for some)
	+@$(RUN_FUZZ) run $(TARGET)

fuzz-replay: ## Run the fuzz targets over their corpus only, without looking for more
	+@$(RUN_FUZZ) replay $(TARGET)

fuzz-merge: ## Put what fuzzing has found since into the corpus, as few files as will do
	+@$(RUN_FUZZ) merge $(TARGET)

.PHONY: test-valgrind coverage mutants mutants-check
coverage: ## Run all tests with MODE=cov and say which lines and branches they run; fails below 95 %
	@tools/deps.sh build test coverage
	+@exec env MAKE='$(MAKE)' BUILD='$(BUILD)' tools/coverage.sh

mutants: ## Put known mistakes into sluice: a test must fail for each (ONLY='101 splice', SHORT=1)
	@tools/deps.sh build test mutants
	@exec env MAKE='$(MAKE)' BUILD='$(BUILD)' ONLY='$(ONLY)' SHORT='$(SHORT)' tools/mutants.sh

mutants-check: ## Refuse patches of tests/mutants that do not apply any more
	$(call say,CHECK,mutants)
	$(Q)BUILD='$(BUILD)' tools/mutants.sh --check

run: all ## Start a demo: sluice on port 8080 in front of a small HTTP server
	@exec env BUILD='$(BUILD)' tools/run-demo.sh

# ---- Checks ------------------------------------------------------------------------------------------------

# Formatting differs between versions of clang-format: 14 is the arbiter.
CLANG_FORMAT = $(shell command -v clang-format-14 || echo clang-format)
CLANG_TIDY = $(shell command -v clang-tidy-14 || echo clang-tidy)

.PHONY: check check-style check-layers check-size check-static check-docs format
check: ## Run every check below, with warnings as errors
	@tools/deps.sh build check
	@$(MAKE) WERROR=1 check-style check-layers check-size check-static check-docs mutants-check

check-style: ## Compare the sources with .clang-format
	$(call say,STYLE,src include tests bench)
	$(Q)$(if $(FORMATTED),$(CLANG_FORMAT) --dry-run -Werror $(FORMATTED))

check-layers: ## Refuse includes of a higher layer, include cycles, system calls outside src/net/sys.c
	$(call say,CHECK,layers)
	$(Q)tools/check-layers.sh --self-check
	$(Q)tools/check-layers.sh

check-size: ## Refuse functions over 70 lines and files over 800
	$(call say,CHECK,size)
	$(Q)tools/check-size.sh

check-docs: $(BUILD)/sluice ## Compare the README's options with those of the program
	$(call say,CHECK,README)
	$(Q)BUILD='$(BUILD)' tools/options-table.sh --check

# The analyzer's objects serve only to skip, next time, what has not changed since. gcc 12 loses track of a pointer that
# is stored in an array, and calls it a leak; clang-tidy and LeakSanitizer find the real ones.
check-static: $(STATIC_SRC:%.c=$(BUILD)/static/%.tidy) ## Run gcc -fanalyzer, clang-tidy and cppcheck over src
	$(call say,CPPCK,src)
	@mkdir -p $(BUILD)/static/cppcheck
	$(Q)cppcheck --quiet --std=c11 --enable=warning,performance,portability --error-exitcode=1 -j 2 \
		--suppressions-list=tools/cppcheck.suppress --cppcheck-build-dir=$(BUILD)/static/cppcheck \
		-Iinclude -D_GNU_SOURCE -DSLUICE_DEBUG=1 -D__linux__ -D__x86_64__ src

$(BUILD)/static/%.o: %.c Makefile
	$(call say,ANALY,$<)
	@mkdir -p $(@D)
	$(Q)gcc $(LANG_FLAGS) $(FLAGS_debug) -fanalyzer -Wno-analyzer-malloc-leak -Werror -MMD -MP -c $< -o $@

$(BUILD)/static/%.tidy: %.c $(BUILD)/static/%.o .clang-tidy
	$(call say,TIDY,$<)
	$(Q)$(CLANG_TIDY) --quiet $< -- $(LANG_FLAGS) -DSLUICE_DEBUG=1 2>$@.log || { cat $@.log >&2; exit 1; }
	@touch $@

format: ## Rewrite the sources as .clang-format says
	$(Q)$(CLANG_FORMAT) -i $(FORMATTED)

# ---- The rest ----------------------------------------------------------------------------------------------

.PHONY: install clean help
install: all ## Install below DESTDIR and PREFIX (default /usr/local)
	install -D -m 0755 $(OUT)/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	@set -e; for doc in $(wildcard README.md docs/*.md); do \
		echo "install $$doc"; install -D -m 0644 $$doc $(DESTDIR)$(PREFIX)/share/doc/sluice/$${doc#docs/}; done

clean: ## Remove what was built
	rm -rf $(addprefix $(BUILD)/,release debug asan ubsan tsan cov fuzz bench soak static test clang mutants coverage \
		valgrind sluice)
	@! test -d $(BUILD) || rmdir --ignore-fail-on-non-empty $(BUILD)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile
	@sed -n '2,/^$$/s/^#   /  /p' Makefile

-include $(patsubst %.o,%.d,$(call object,$(LIB_SRC) src/main.c $(BENCH_SRC) $(UNIT_ALL_SRC) \
	$(SIM_ALL_SRC) $(DRIVING_ALL_SRC) $(RUNNER_SRC) $(FUZZ_SRC) $(FUZZ_COMMON_SRC) \
	$(FUZZ_MODEL_SRC) $(SOAK_SRC)) $(STATIC_SRC:%.c=$(BUILD)/static/%.o))
