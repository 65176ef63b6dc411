# `make run` and `make test` do whatever set-up is missing. CONTRIBUTING.md says more.
PYTHON ?= python3
NDR = .venv/bin/ndr
BENCHMARKS = loss reading preparing row_features fixed training large_tables frequency workers correction history_encoder cooccurrence warm_start replay cold_items evaluation retrieval refresh shards serving inspection pipeline gowalla

BEAM = $(shell sed -n 's/^apache-beam==\([0-9.]*\).*/\1/p' requirements.lock)

.PHONY: setup prism flink spark run test lint docs bench clean distclean lock protocol sbom

setup:
	@$(PYTHON) tools/setup_env.py

# Beam's own engine, in Go, of the version that is in the lock: tests run steps on it where it is.
prism:
	@GOBIN=$(CURDIR)/var/engines go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

# Beam's job servers of Flink and of Spark, with these in them, in Java.
flink spark: ENGINE = var/engines/$@
flink spark:
	@rm -rf $(ENGINE) $(ENGINE).aside
	@mvn --quiet --batch-mode -Dstyle.color=never --file tools/engines/$@.xml \
		org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies -DoutputDirectory=$(CURDIR)/$(ENGINE).aside
	@mv $(ENGINE).aside $(ENGINE)

run: setup
	@$(NDR) data movielens
	@$(NDR) run --date 1998-04-22

# A file a worker, in the order of the tree: by the number of tests the longest files, which have few, would come last. One worker
# more than processors, as each waits a fifth of its time, for servers, databases and other processes.
test: setup
	@.venv/bin/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/hadolint Dockerfile

docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "docs: var/site/index.html"

bench: setup
	@for name in $(BENCHMARKS); do .venv/bin/python -m benchmarks.$$name --json var/benchmarks/$$name.json || exit 1; done

# What a command makes again. Models, data and ML Metadata are in var/, which only distclean removes.
clean:
	rm -rf .venv var/site var/engines build *.egg-info .mypy_cache .pytest_cache .ruff_cache

distclean: clean
	rm -rf var

lock:
	@$(PYTHON) tools/setup_env.py lock

# CycloneDX, of what the image installs by pip; what it has of Debian, docker buildx build --sbom=true lists beside it.
sbom: setup
	@mkdir -p var && .venv/bin/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.lock \
		--pyproject pyproject.toml --output-reproducible --output-format JSON --output-file var/sbom.json

# mypy is strict about what protoc leaves open. protobuf reads code of its own major version and of the one before.
protocol: setup
	@.venv/bin/uv tool run --quiet --from grpcio-tools==1.75.1 python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. ndr_client/protocol.proto
	@sed -i 's/_Mapping\]/_Mapping[str, object]]/g' ndr_client/protocol_pb2.pyi
