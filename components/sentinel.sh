# How the processes of a replicated Redis start, and how a member leaves.
# $0 says which: server and watcher run side by side in each member, MEMBER is its name. Then the file with the password, all
# members, and what is to be started.
file=$1 members=$2
shift 2
first=${members%% *}
password=$(cat "$file")
# Sentinel writes what it is told to disk: so it has a user of its own, who can read no data, and a password made from the other.
watcher=$(printf 'watcher %s' "$password" | sha256sum | cut -d ' ' -f 1)
state=/data/sentinel.conf

ask() {
  REDISCLI_AUTH=$watcher timeout 2 redis-cli -h "$1" -p 26379 sentinel "$2" tiers 2>/dev/null
}

# What each Sentinel that answers says of the primary: epoch, name, how many replicas it knows, flags. The last one counts.
views() {
  for member in $members; do
    ask "$member" master | awk 'NR % 2 { key = $0; next } { of[key] = $0 }
      END { if (of["ip"]) print of["config-epoch"], of["ip"], of["num-slaves"], of["flags"] }'
  done | sort -n
}

# Whom this member is to follow, as a line of its configuration; nothing if nobody. Fails while that is not decided.
place() {
  seen=$(views)
  # Two of three have to answer: of fewer each may have missed who took over.
  [ "$(echo "$seen" | wc -l)" -ge 2 ] || return 1
  case $seen in *failover_in_progress*) return 1 ;; esac
  primary=$(echo "$seen" | tail -n 1 | cut -d ' ' -f 2)
  if [ "$primary" != "$MEMBER" ]; then
    echo "replicaof $primary 6379"
    return
  fi
  # A primary that has lost its data would take it from the others, too: it waits until they have one of theirs instead.
  [ -d /data/appendonlydir ] || echo "$seen" | awk '$3 > 0 { exit 1 }'
}

server() {
  until follow=$(place); do
    echo "waiting for two Sentinels to agree on who is primary, and that it is one with data" >&2
    sleep 1
  done
  exec "$@" <<END
requirepass $password
masterauth $password
user watcher on >$watcher allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info +client|setname +client|kill +script|kill
replica-announce-ip $MEMBER
min-replicas-to-write 1
min-replicas-max-lag 5
repl-timeout 15
repl-diskless-sync-delay 0
$follow
END
}

# What a Sentinel has seen outlives it; its settings come new each time. One that has seen nothing asks the others first.
watcher() {
  seen=$(grep -E '^sentinel (monitor|(config|leader|current)-epoch|known-(replica|sentinel)) ' $state 2>/dev/null || true)
  case $seen in
  *monitor*) ;;
  *)
    primary=$(views | tail -n 1 | cut -d ' ' -f 2)
    seen="sentinel monitor tiers ${primary:-$first} 6379 2"
    ;;
  esac
  cat >$state.new <<END
port 26379
dir /data
requirepass $watcher
sentinel sentinel-pass $watcher
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $MEMBER
sentinel myid $(printf %s "$MEMBER" | sha1sum | cut -d ' ' -f 1)
$seen
sentinel auth-user tiers watcher
sentinel auth-pass tiers $watcher
sentinel down-after-milliseconds tiers 5000
sentinel failover-timeout tiers 15000
END
  mv $state.new $state
  exec "$@"
}

# The password is in the proxy's own environment only, where its configuration takes it from.
proxy() {
  export WATCHER="$watcher"
  exec "$@" <<END
$CONFIG
END
}

# Before a primary is stopped another takes over. Until then nothing is written, so that the other has all that was answered.
leave() {
  export REDISCLI_AUTH="$password"
  redis-cli role | grep -qx master || return 0
  redis-cli client pause 5000 write
  sleep 1
  for member in $members; do
    [ "$member" = "$MEMBER" ] || ! ask "$member" failover | grep -qx OK || break
  done
  for _ in 1 2 3 4 5 6 7 8; do
    [ "$(views | tail -n 1 | cut -d ' ' -f 2)" = "$MEMBER" ] || break
    sleep 1
  done
}

"$0" "$@"
