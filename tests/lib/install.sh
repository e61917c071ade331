# What the tests need beyond Rust: sourced by ./test, never run. Each `need_*` makes one thing be there, or says on stdout why it
# cannot be and returns 1. Everything goes below $SABIR_CACHE, but for Debian's packages where we are root and nothing that is installed
# would have to go for them.

SABIR_CACHE=${SABIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sabir}
# where Debian's packages are unpacked if they are not installed
DEBS=$SABIR_CACHE/debian
export SABIR_CACHE

have() { command -v "$1" >/dev/null 2>&1; }

# need_debian PROBE PACKAGE...: the packages, unless `PROBE` succeeds already
need_debian() {
  local probe=$1 log=$LOGS/install.log; shift
  $probe && return 0
  have apt-get || { echo "needs ${*}, and there is no apt-get here"; return 1; }
  bring_debian "$@" >>"$log" 2>&1
  $probe || { echo "$* could not be installed, see $log"; return 1; }
}

# bring_debian PACKAGE...: installed, where we may and nothing goes for it; else unpacked
bring_debian() {
  [ "$(id -u)" = 0 ] && apt_as_root "$@" && return 0
  apt_unpack "$@"
}

# Fails where a package would put another one off the machine, as rsyslog does with its logger, or change one that is there.
# RUNLEVEL=1 keeps a package from starting its service.
apt_as_root() {
  local plan options=(-o DPkg::Lock::Timeout=300 --no-install-recommends --no-remove --no-upgrade)
  apt-get "${options[@]}" -qq update
  plan=$(apt-get "${options[@]}" -s install "$@") || return 1
  if grep -qE '^(Remv |Inst [^ ]+ \[)' <<<"$plan"; then return 1; fi
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get "${options[@]}" -qq -y install "$@"
}

# Lists and archives of our own, since the system's cannot be written; what the system has installed is not unpacked again.
apt_unpack() {
  local options=(-o "Dir::State=$DEBS/state" -o "Dir::Cache=$DEBS/cache" -o Dir::State::status=/var/lib/dpkg/status
    -o Debug::NoLocking=1 -o APT::Sandbox::User= -o APT::Install-Recommends=0)
  mkdir -p "$DEBS/state/lists/partial" "$DEBS/cache/archives/partial" "$DEBS/root" "$DEBS/packages"
  apt-get "${options[@]}" -qq update
  local packages
  packages=$(apt-get "${options[@]}" -s install "$@" | awk '/^Inst / {print $2}')
  # shellcheck disable=SC2086
  (cd "$DEBS/packages" && apt-get "${options[@]}" -qq download $packages)
  local package
  for package in "$DEBS"/packages/*.deb; do dpkg -x "$package" "$DEBS/root"; done
}

# What apt_unpack has brought is found like the system's own.
use_unpacked() {
  local libraries module
  [ -d "$DEBS/root" ] || return 0
  if [[ :$PATH: != *":$DEBS/root/usr/bin:"* ]]; then
    libraries=$(find "$DEBS/root/usr/lib" "$DEBS/root/lib" -maxdepth 1 -name '*-linux-gnu*' -type d 2>/dev/null | tr '\n' ':')
    LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH%:}
    export PATH=$DEBS/root/usr/bin:$DEBS/root/usr/sbin:$PATH CPLUS_INCLUDE_PATH=$DEBS/root/usr/include
  fi
  module=$(find "$DEBS/root" -name omkafka.so)
  [ -z "$module" ] || export RSYSLOG_MODULES=${module%/*}
}

probe_kcat() { use_unpacked; have kcat; }
need_kcat() { need_debian probe_kcat kcat; }

probe_rsyslog() {
  use_unpacked
  export PATH=$PATH:/usr/sbin
  have rsyslogd && [ -n "$(find "$DEBS/root/usr/lib" /usr/lib -name omkafka.so 2>/dev/null | head -1)" ]
}
need_rsyslog() { need_debian probe_rsyslog rsyslog rsyslog-kafka; }

probe_valgrind() {
  use_unpacked
  [ ! -d "$DEBS/root/usr/libexec/valgrind" ] || export VALGRIND_LIB=$DEBS/root/usr/libexec/valgrind
  have valgrind
}
need_valgrind() { need_debian probe_valgrind valgrind; }

probe_rapidjson() {
  use_unpacked
  echo '#include <rapidjson/schema.h>' | g++ -xc++ -fsyntax-only - 2>/dev/null
}

need_librdkafka() {
  local tool
  for tool in gcc g++ make; do have $tool || { echo "needs $tool"; return 1; }; done
  # without it, a few of its cases are skipped, which shows as failures
  need_debian probe_rapidjson rapidjson-dev || return 1
  tests/clients/librdkafka/build.sh >>"$LOGS/install.log" 2>&1 || { echo "librdkafka cannot be built, see $LOGS/install.log"; return 1; }
}

need_kafka_jars() {
  local tool
  for tool in java javac mvn; do have $tool || { echo "needs a JDK and Maven ($tool is missing)"; return 1; }; done
  bash bench/peers/kafka.sh install >>"$LOGS/install.log" 2>&1 || {
    echo "Kafka's jars cannot be had from Maven Central, see $LOGS/install.log"
    return 1
  }
}

# Kafka's own client, as it was and as it is.
need_kafka_clients() {
  tests/clients/java/clients.sh >>"$LOGS/install.log" 2>&1 || {
    echo "older versions of Kafka's client cannot be had from Maven Central, see $LOGS/install.log"
    return 1
  }
}

# The programs of tests/clients/go; a go from 1.21 on fetches the newer one that they ask for by itself.
need_go_clients() {
  have go || { echo "needs Go"; return 1; }
  mkdir -p "$SABIR_CACHE/go"
  (cd tests/clients/go && go build -o "$SABIR_CACHE/go/" ./franz ./segmentio ./refusals) >>"$LOGS/install.log" 2>&1 || {
    echo "the Go clients cannot be built, see $LOGS/install.log"
    return 1
  }
}

probe_node() { use_unpacked; have node && have npm; }
need_kafkajs() {
  local home=$SABIR_CACHE/node
  need_debian probe_node nodejs npm || return 1
  cmp -s tests/clients/node/package-lock.json "$home/package-lock.json" && [ -d "$home/node_modules/kafkajs" ] && return 0
  mkdir -p "$home"
  cp tests/clients/node/package.json tests/clients/node/package-lock.json "$home/"
  npm ci --prefix "$home" --no-audit --no-fund >>"$LOGS/install.log" 2>&1 || {
    echo "KafkaJS cannot be installed, see $LOGS/install.log"
    return 1
  }
}

# A virtual environment, made anew when what is asked of it has changed; $PYTHON is its interpreter.
need_python() {
  local home=$SABIR_CACHE/python wanted=tests/lib/requirements.txt
  PYTHON=$home/bin/python
  export PYTHON
  cmp -s "$wanted" "$home/requirements.txt" && "$PYTHON" -c 'import confluent_kafka' 2>/dev/null && return 0
  have python3 || { echo "needs Python 3"; return 1; }
  rm -rf "$home"
  {
    python3 -m venv "$home" && "$home/bin/pip" --disable-pip-version-check install -q -r "$wanted" && cp "$wanted" "$home/"
  } >>"$LOGS/install.log" 2>&1 || { echo "its Python packages cannot be installed, see $LOGS/install.log"; return 1; }
}

probe_prometheus() { use_unpacked; have prometheus && have promtool; }
need_prometheus() { need_debian probe_prometheus prometheus; }

need_kafka_python() {
  have python3 || { echo "needs Python 3"; return 1; }
  tests/clients/python/install.sh >>"$LOGS/install.log" 2>&1 || { echo "kafka-python cannot be installed, see $LOGS/install.log"; return 1; }
}

# Python's clients of AMQP in a virtual environment of their own; $AMQP_PYTHON is its interpreter.
need_amqp_python() {
  have python3 || { echo "needs Python 3"; return 1; }
  AMQP_PYTHON=$SABIR_CACHE/amqp-python/python/bin/python
  export AMQP_PYTHON
  tests/clients/amqp/install.sh >>"$LOGS/install.log" 2>&1 || {
    echo "AMQP's Python clients cannot be installed, see $LOGS/install.log"
    return 1
  }
}

need_amqplib() {
  local home=$SABIR_CACHE/amqplib
  need_debian probe_node nodejs npm || return 1
  cmp -s tests/clients/amqp/amqplib/package-lock.json "$home/package-lock.json" && [ -d "$home/node_modules/claire" ] && return 0
  mkdir -p "$home"
  cp tests/clients/amqp/amqplib/package.json tests/clients/amqp/amqplib/package-lock.json "$home/"
  npm ci --prefix "$home" --no-audit --no-fund --ignore-scripts >>"$LOGS/install.log" 2>&1 || {
    echo "amqplib cannot be installed, see $LOGS/install.log"
    return 1
  }
}

need_perf_test() {
  local tool
  for tool in java mvn; do have $tool || { echo "needs a JDK and Maven ($tool is missing)"; return 1; }; done
  bash bench/peers/rabbitmq.sh tools >>"$LOGS/install.log" 2>&1 || { echo "PerfTest cannot be had from Maven Central, see $LOGS/install.log"; return 1; }
}

# The broker itself, where it is the control.
need_rabbitmq() {
  bash bench/peers/rabbitmq.sh install >>"$LOGS/install.log" 2>&1 || { echo "RabbitMQ cannot be installed, see $LOGS/install.log"; return 1; }
}

need_root() { [ "$(id -u)" = 0 ] || { echo "needs root"; return 1; }; }

# cargo-fuzz, where there is a nightly toolchain to run it with; none is installed for it.
CARGO_FUZZ_VERSION=0.13.1
need_cargo_fuzz() {
  local home=$SABIR_CACHE/cargo-fuzz-$CARGO_FUZZ_VERSION
  cargo +nightly --version >/dev/null 2>&1 || { echo "needs a nightly toolchain (rustup toolchain install nightly)"; return 1; }
  have g++ || { echo "needs a C++ compiler"; return 1; }
  export PATH=$home/bin:$PATH
  [ -x "$home/bin/cargo-fuzz" ] && return 0
  CARGO_TARGET_DIR=$home/target cargo install --quiet --locked --root "$home" --version "$CARGO_FUZZ_VERSION" cargo-fuzz \
    >>"$LOGS/install.log" 2>&1 || { echo "cargo-fuzz cannot be installed, see $LOGS/install.log"; return 1; }
  rm -rf "$home/target"
}
