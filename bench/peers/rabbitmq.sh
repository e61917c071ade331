#!/usr/bin/env bash
# RabbitMQ (Debian's package) and its load tool PerfTest (com.rabbitmq:perf-test). The verbs are those of lib.sh, and:
#   tools              installs PerfTest alone
#   restart            stops and starts again with the data kept
#   run                what start starts, in the foreground and with the data there is: for a test that kills it itself
#   ctl ARGUMENT...    rabbitmqctl against the broker that start or run began
# AMQP 0-9-1 is on $RABBITMQ_PORT (5672), the management API and UI on $RABBITMQ_MANAGEMENT_PORT (15672), guest/guest.
# start takes sync or os, and both start the same broker: with RabbitMQ durability belongs to the queue, so the case
# chooses it. Seen with strace on 3.10.8: a confirm follows an fsync on quorum queues and on classic queues of version 1 (its
# default), so quorum-1k, persistent-1k, queues-100, latency-1k and backlog are sync cases; classic queues of version 2 confirm
# without one, so persistent-1k-v2 is the os case.
# bench reads PEER_ADDR, PEER_PID, PEER_NAME (the "peer" of the JSON), BENCH_SECONDS (30), BENCH_WARM_SECONDS (5, left out
# of every rate and latency; CPU is that of the whole run over all its messages) and BENCH_BACKLOG (1000000).
. "$(dirname "$(readlink -f "$0")")/lib.sh"

PERF_TEST=2.22.1
PORT=${RABBITMQ_PORT:-5672}
# or off: the broker alone
MANAGEMENT_PORT=${RABBITMQ_MANAGEMENT_PORT:-15672}
HOME_DIR=$PEERS_HOME/rabbitmq
DATA=$PEERS_DATA/rabbitmq
PEER=${PEER_NAME:-rabbitmq}
SECONDS_RUN=${BENCH_SECONDS:-30}
WARM=${BENCH_WARM_SECONDS:-5}
BACKLOG=${BENCH_BACKLOG:-1000000}
CASES="publish-consume-12b persistent-1k persistent-1k-v2 quorum-1k queues-100 latency-1k backlog"

# the directory of the server's scripts; the wrappers in PATH only work as root and in /var/lib/rabbitmq
sbin() { local d; for d in /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin; do [ -d "$d" ] && { echo "$d"; return; }; done; return 1; }

environment() {
  export HOME="$HOME_DIR/home" RABBITMQ_NODENAME=peer@localhost RABBITMQ_CONF_ENV_FILE=/dev/null
  export RABBITMQ_MNESIA_BASE="$DATA/mnesia" RABBITMQ_LOG_BASE="$DATA/log" RABBITMQ_CONFIG_FILE="$DATA/rabbitmq.conf"
  export RABBITMQ_ENABLED_PLUGINS_FILE="$DATA/enabled_plugins" RABBITMQ_PID_FILE="$DATA/pid"
  export RABBITMQ_GENERATED_CONFIG_DIR="$DATA/config" RABBITMQ_SCHEMA_DIR="$DATA/schema"
  # an epmd of its own, so that nothing is left behind and no other Erlang node is touched
  export ERL_EPMD_PORT=${RABBITMQ_EPMD_PORT:-$((PORT + 20002))} ERL_EPMD_ADDRESS=127.0.0.1
  export RABBITMQ_DIST_PORT=${RABBITMQ_DIST_PORT:-$((PORT + 20001))}
  export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
  # it takes its own variables without their prefix too, and ./test has one of that name
  unset LOGS
  export ERL_CRASH_DUMP_SECONDS=0 LANG=C.UTF-8 LC_ALL=C.UTF-8
}

install() {
  if ! sbin >/dev/null; then
    local root='' policy=''
    [ "$(id -u)" = 0 ] || root=sudo
    # no service may start while the package is installed
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      policy=1
      printf '#!/bin/sh\nexit 101\n' | $root tee /usr/sbin/policy-rc.d >/dev/null
      $root chmod 755 /usr/sbin/policy-rc.d
    fi
    $root apt-get -o DPkg::Lock::Timeout=300 -qq update >&2
    $root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y --no-install-recommends install rabbitmq-server >&2
    [ -z "$policy" ] || $root rm -f /usr/sbin/policy-rc.d
    [ ! -d /run/systemd/system ] || $root systemctl disable --now rabbitmq-server epmd.socket >&2 2>/dev/null || true
  fi
  mkdir -p "$HOME_DIR/home"
  tools
}

tools() { maven_install "$HOME_DIR" "com.rabbitmq:perf-test:$PERF_TEST"; }

configure() {
  mkdir -p "$DATA/mnesia" "$DATA/log" "$DATA/config" "$DATA/schema"
  cat >"$DATA/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$PORT
log.file.level = info
CONF
  echo '[rabbitmq_consistent_hash_exchange].' >"$DATA/enabled_plugins"
  [ "$MANAGEMENT_PORT" != off ] || return 0
  printf 'management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %s\n' "$MANAGEMENT_PORT" >>"$DATA/rabbitmq.conf"
  echo '[rabbitmq_consistent_hash_exchange,rabbitmq_management].' >"$DATA/enabled_plugins"
}

# The node name service ends with whoever runs this, however that ends: nothing is left behind that would hold the port.
run() {
  configure
  environment
  setpriv --pdeathsig KILL epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" >"$DATA/log/epmd.txt" 2>&1 </dev/null &
  # "under systemd" the script execs the VM, so this process becomes the broker itself
  export RUNNING_UNDER_SYSTEMD=true
  exec "$(sbin)/rabbitmq-server"
}

launch() {
  configure
  (
    environment
    start_bg rabbitmq.epmd "$DATA/log/epmd.txt" epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT"
    # "under systemd" the script execs the VM, so the remembered process is the broker itself
    export RUNNING_UNDER_SYSTEMD=true
    start_bg rabbitmq "$DATA/log/out.txt" "$(sbin)/rabbitmq-server"
  )
  wait_port 127.0.0.1 "$PORT" 60
  wait_port 127.0.0.1 "$MANAGEMENT_PORT" 60
  ctl await_startup >/dev/null
}

start() {
  case ${1:-os} in sync | os) ;; *) die "start [sync|os]" ;; esac
  install
  stop
  free_port "$PORT" "$MANAGEMENT_PORT"
  rm -rf "$DATA"
  launch
}

stop() {
  local file=$PEERS_DATA/rabbitmq.pid pid
  if [ -f "$file" ]; then
    pid=$(cat "$file")
    # only the VM at first: its children must outlive its orderly shutdown
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  fi
  stop_bg rabbitmq
  stop_bg rabbitmq.epmd
}

ctl() { (environment; "$(sbin)/rabbitmqctl" "$@"); }

# perf CSV ARGUMENT...: PerfTest against the peer; a line a second into the CSV
perf() {
  local csv=$1; shift
  java -Xmx2g -cp "$HOME_DIR/lib/*" com.rabbitmq.perf.PerfTest -h "amqp://guest:guest@$ADDR/%2f" -o "$csv" "$@"
}

# columns of the CSV: 2 time, 3 sent/s, 5 confirmed/s, 7 received/s, 8-12 min/median/75th/95th/99th of the latency in µs,
# 13-17 the same of the confirms
# rate CSV COLUMN: its mean after the warm-up; all CSV COLUMN: messages in the whole run; pct CSV COLUMN: its median second
rate() { awk -F, -v w="$WARM" -v c="$2" 'NR > 1 && $2 > w + 0.5 && $c != "" {s += $c; n++} END {printf "%.0f", n ? s / n : 0}' "$1"; }
all() { awk -F, -v c="$2" 'NR > 1 {s += $c * ($2 - t); t = $2} END {printf "%.0f", s}' "$1"; }
pct() {
  awk -F, -v w="$WARM" -v c="$2" 'NR > 1 && $2 > w + 0.5 && $c != "" && $c > 0 {print $c}' "$1" | sort -n |
    awk '{a[NR] = $1} END {printf "%.0f", NR ? a[int((NR + 1) / 2)] : 0}'
}
least() { [ "$1" -lt "$2" ] && echo "$1" || echo "$2"; }

# flow CASE ARGUMENT...: a bounded run with producers and consumers
flow() {
  local case=$1 csv="$PEERS_DATA/perf-$1.csv" sent received total extra=(); shift
  rm -f "$csv"
  measured "$PID" 1 perf "$csv" -z "$SECONDS_RUN" "$@"
  sent=$(rate "$csv" 3) received=$(rate "$csv" 7)
  total=$(all "$csv" 7)
  [ "$total" -gt 0 ] || { tail -5 "$PEERS_DATA/out.txt" >&2; die "$case: nothing was received"; }
  [ "$(pct "$csv" 14)" = 0 ] || extra=(confirm_p50_us="$(pct "$csv" 14)" confirm_p95_us="$(pct "$csv" 16)" confirm_p99_us="$(pct "$csv" 17)")
  emit "$PEER" "$case" msgs_per_s="$(least "$sent" "$received")" sent_per_s="$sent" received_per_s="$received" \
    latency_p50_us="$(pct "$csv" 9)" latency_p95_us="$(pct "$csv" 11)" latency_p99_us="$(pct "$csv" 12)" "${extra[@]}" \
    cpu_s_per_million="$(awk -v c="$CPU_S" -v n="$total" 'BEGIN {printf "%.2f", c * 1e6 / n}')" rss_mib="$RSS_MIB" messages="$total"
}

# span CSV COLUMN: messages a second between the first and the last line that has some
span() { awk -F, -v c="$2" 'NR > 1 {if ($c > 0) {if (!s) from = t; s += $c * ($2 - t); to = $2} t = $2} END {printf "%.0f", (to > from) ? s / (to - from) : 0}' "$1"; }

backlog() {
  local q=$1 csv="$PEERS_DATA/perf-backlog.csv" publish rss_full cpu
  rm -f "$csv"
  measured "$PID" "$BACKLOG" perf "$csv" -x 2 -y 0 -u "$q" -f persistent -c 500 -s 100 -C $((BACKLOG / 2))
  publish=$(span "$csv" 5) rss_full=$RSS_MIB cpu=$CPU_PER_MILLION
  rm -f "$csv"
  measured "$PID" "$BACKLOG" perf "$csv" -x 0 -y 1 -u "$q" -f persistent -q 1000 -A 100 -D "$BACKLOG"
  emit "$PEER" backlog msgs_per_s="$publish" publish_per_s="$publish" drain_per_s="$(span "$csv" 7)" \
    cpu_s_per_million_publish="$cpu" cpu_s_per_million_drain="$CPU_PER_MILLION" rss_mib_full="$rss_full" rss_mib="$RSS_MIB" messages="$BACKLOG"
}

bench() {
  local case q
  mkdir -p "$PEERS_DATA"
  ADDR=${PEER_ADDR:-127.0.0.1:$PORT}
  PID=${PEER_PID:-$(cat "$PEERS_DATA/rabbitmq.pid" 2>/dev/null || true)}
  [ -n "$PID" ] && [ -d "/proc/$PID" ] || die "no broker: start it, or set PEER_PID"
  [ -d "$HOME_DIR/lib" ] || die "no PerfTest: install first"
  [ $# -gt 0 ] || set -- $CASES
  for case in "$@"; do
    q="perf-$case-$$"
    case $case in
      publish-consume-12b) flow "$case" -x 1 -y 1 -u "$q" -a -s 12 ;;
      persistent-1k) flow "$case" -x 2 -y 2 -u "$q" -f persistent -c 200 -q 200 -A 100 -s 1024 ;;
      persistent-1k-v2) flow "$case" -x 2 -y 2 -u "$q" -qa x-queue-version=2 -f persistent -c 200 -q 200 -A 100 -s 1024 ;;
      quorum-1k) flow "$case" -x 2 -y 2 -u "$q" -qq -qa x-expires=10000 -f persistent -c 200 -q 200 -A 100 -s 1024 ;;
      queues-100) flow "$case" -x 100 -y 100 -qp "$q-%d" -qpf 1 -qpt 100 -f persistent -c 50 -q 50 -A 10 -s 1024 ;;
      latency-1k) flow "$case" -x 1 -y 1 -u "$q" -f persistent -c 200 -q 200 -A 100 -s 1024 -r 2000 ;;
      backlog) backlog "$q" ;;
      *) die "no case $case (cases: $CASES)" ;;
    esac
  done
}

case ${1:-} in
  install | tools | stop | run) "$1" ;;
  start) start "${2:-os}" ;;
  restart) stop; launch ;;
  ctl) shift; ctl "$@" ;;
  bench) shift; bench "$@" ;;
  cases) printf '%s\n' $CASES ;;
  *) die "install | tools | start [sync|os] | stop | restart | run | ctl ARGUMENT... | bench [CASE...] | cases" ;;
esac
