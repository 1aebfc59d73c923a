#!/bin/sh
# Holds very many connections to one node, in a machine that allows so many open files per process, and has each get one message.
#
#   DATA=/data ACCOUNTS=1000000 LOGS=10 SEED=1 sh million.sh
#
# DATA is a folder with the store (martlet.db) and the secret (node.secret) that `martlet import` made of the archive of
# `martlet-load population` with the same three numbers; LOGS times 100,000 is the idea. STEPS (such as 250000,500000,1000000) reads the
# memory in between. `martlet` and `martlet-load` are taken from PATH. martlet-load asks the node over HTTP which logs there are, and its HTTP
# client wants the system's root certificates even so: in a bare machine, set SSL_CERT_FILE.
set -eu
DATA=${DATA:?a folder that martlet import has made}
ACCOUNTS=${ACCOUNTS:-1000000} LOGS=${LOGS:-10} SEED=${SEED:-1}
STEPS=${STEPS:-$ACCOUNTS} PATIENCE=${PATIENCE:-10m} SETTLE=${SETTLE:-20s} AT_ONCE=${AT_ONCE:-256}
LISTEN=${LISTEN:-127.0.0.1:8080} INTERNAL=${INTERNAL:-127.0.0.1:8081}

# Refuses a machine whose system would drop what is under way: sent again more and more seldom, it makes hours of minutes.
#   needs KEY COLUMN NUMBER VALUE
needs() {
  has=$(awk "{ print \$$2 }" "/proc/sys/$(echo "$1" | tr . /)")
  [ "$has" -ge "$3" ] && return
  echo "$1 allows $has; $3 are needed:" >&2
  echo "  sysctl -w $1='$4'" >&2
  exit 1
}
# Each socket that has anything under way holds a page of 4 KiB, and the system has a bound for all of them together.
needs net.ipv4.tcp_mem 3 $((2 * ACCOUNTS)) "$((2 * ACCOUNTS)) $((2 * ACCOUNTS)) $((3 * ACCOUNTS))"
# What a processor has sent to itself and not yet received. Timers of sockets that wait fall due by the thousand at once.
needs net.core.netdev_max_backlog 1 "$ACCOUNTS" "$ACCOUNTS"

# Limits protect a node from single addresses and devices; here all come from few addresses, each device once.
limits() {
  for key in sends_per_device_per_second sends_burst sends_per_account_per_second frames_per_socket_per_second \
    frames_per_account_per_second frames_per_address_per_second \
    sign_ins_per_account_per_minute requests_per_account_per_minute requests_per_address_per_second \
    connections_per_address_per_second connections_per_device_per_minute sign_ins_per_address_per_minute \
    requests_per_device_per_minute connections_per_second; do
    printf -- '--set limits.%s=0 ' $key
  done
}

healthy() {
  # busybox and others: whoever can fetch a page.
  wget -q -O /dev/null "http://$INTERNAL/health" 2>/dev/null || curl -fso /dev/null "http://$INTERNAL/health" 2>/dev/null
}

memory() {
  echo "$1: $(awk '/^(MemTotal|MemAvailable|Slab|Shmem):/ { printf "%s %d MiB  ", $1, $2 / 1024 }' /proc/meminfo)"
  echo "$1: $(awk '/^TCP:/' /proc/net/sockstat); sent again: $(awk '/^Tcp: [0-9]/ { print $13 }' /proc/net/snmp) segments"
  echo "$1: dropped by each processor, hexadecimal: $(awk '{ printf $2 " " }' /proc/net/softnet_stat)"
}

memory before
# shellcheck disable=SC2046 # one word per setting
martlet serve --data-dir "$DATA" --listen "$LISTEN" --internal-listen "$INTERNAL" --log warn \
  --set server.max_connections=100000000 --set "socket.ping_interval=${PING:-15m}" --set socket.pong_timeout=10m \
  --set socket.head_check_interval=10m --set conversations.max_members_large=1000000 --set storage.wait=1m \
  $(limits) &
node=$!
# The node lets go of its address before this ends.
stop() {
  kill "$@" 2>/dev/null || true
  wait
}
trap 'stop "$node"' EXIT
until healthy; do
  kill -0 "$node" || { echo "the node did not start" >&2; exit 1; }
  sleep 1
done
memory started

# What the system holds for all these sockets is in no process's memory.
{ while sleep "${EVERY:-60}"; do memory holding; done; } &
watch=$!
trap 'stop "$node" "$watch"' EXIT

# Through cat, so that progress comes in lines.
failed=$(mktemp)
{ martlet-load hold --server "http://$LISTEN" --server-pid "$node" --accounts "$ACCOUNTS" --logs "$LOGS" --seed "$SEED" \
  --connections "$STEPS" --patience "$PATIENCE" --settle "$SETTLE" --at-once "$AT_ONCE" 2>&1 || echo failed >"$failed"; } | cat
grep -E '^Vm(HWM|RSS):' "/proc/$node/status" | sed 's/^/node /'
memory after
test ! -s "$failed"
