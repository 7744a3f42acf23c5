#!/usr/bin/env bash
# A real Apache Kafka broker for tests and benchmarks: one node, KRaft, data in a temporary folder.
#
# Why it exists: librdkafka's mock cluster truncates a partition at 5 MiB, ignores transactions and has no admin calls,
# so a promise that nothing is lost can only be tested on the real thing. It never skips: with no way to a broker it
# says what to install and fails.
#
# Runs with bash 3.2 and later (macOS has 3.2).
set -euo pipefail

version=4.1.2
image="apache/kafka:$version"
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${POSTRIDER_BROKER_CACHE:-$repository/target/broker}
start_seconds=60
stop_seconds=5

usage() {
    cat <<'TEXT'
usage: tests/broker.sh run -- COMMAND...   run COMMAND with KAFKA_BOOTSTRAP_SERVERS set; its exit code is kept
       tests/broker.sh start DIR           start a broker that keeps everything in DIR; prints its bootstrap servers
       tests/broker.sh stop DIR            SIGTERM, and SIGKILL after 5 seconds
       tests/broker.sh kill DIR            SIGKILL
       tests/broker.sh remove DIR          SIGKILL, and forget it; DIR itself is left for the caller to delete
       tests/broker.sh restart DIR         start it again (stopping it first if it is up): same ports, same data

`run` uses the broker of KAFKA_BOOTSTRAP_SERVERS when that is set. Otherwise, and always for `start`, a broker is
started by Docker if a daemon answers, else by Java 17 or later with jars that Maven fetches.
COMMAND gets no terminal to read from. For a broker to play with use `start`.

environment:
  KAFKA_BOOTSTRAP_SERVERS   a broker that is up already; it must allow topics to be created and deleted
  POSTRIDER_BROKER_CACHE    where the jars are kept (default: target/broker)
  POSTRIDER_BROKER_OWNER    process id: when that process is gone, the broker of `start` is killed
  POSTRIDER_BROKER_PROXY    port of a proxy on loopback: a second listener whose clients are sent there; its own port is
                            in DIR/proxied
  POSTRIDER_BROKER_SECURITY folder of server.pem (private key and certificate) and ca.pem: two more listeners over TLS, one
                            with SASL (port in DIR/sasl) and one that asks for client certificates (DIR/mtls), and
                            StandardAuthorizer, for which only the plain listener may do everything; needs Java
TEXT
}

say() { printf 'broker.sh: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# Runs a command quietly for at most so many seconds (`timeout` is not on every machine).
within() {
    local seconds=$1 pid tick
    shift
    "$@" </dev/null >/dev/null 2>&1 &
    pid=$!
    for ((tick = 0; tick < seconds * 10; tick++)); do
        kill -0 "$pid" 2>/dev/null || { wait "$pid" && return 0 || return $?; }
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    return 124
}

# --- which way to a broker -------------------------------------------------------------------------------------------

java_command() { printf '%s' "${JAVA_HOME:+$JAVA_HOME/bin/}java"; }

java_is_new_enough() {
    local first major
    first=$("$(java_command)" -version 2>&1 | grep -m1 -E 'version "[0-9]+') || return 1
    major=$(printf '%s' "$first" | sed -E 's/.*version "([0-9]+).*/\1/')
    [ "$major" -ge 17 ]
}

choose_way() {
    # Names of settings with dashes (of SCRAM) do not go through the image's environment.
    if [ -z "${POSTRIDER_BROKER_SECURITY:-}" ] && command -v docker >/dev/null && within 5 docker info; then
        echo docker
    elif java_is_new_enough && { [ -d "$(jars)" ] || command -v mvn >/dev/null; }; then
        echo java
    else
        cat >&2 <<TEXT
broker.sh: the tests need a real Kafka broker, and there is no way to one here. Any of these will do:
  - set KAFKA_BOOTSTRAP_SERVERS to a broker that is up (for \`run\`);
  - start Docker, so that \`docker info\` answers;
  - install Java 17 or later and Maven (Debian, Ubuntu: apt-get install openjdk-17-jre-headless maven;
    macOS: brew install openjdk@17 maven).
TEXT
        return 1
    fi
}

jars() { printf '%s' "$cache/kafka-$version"; }

fetch_jars() {
    local work
    # The folder gets its name only once it is complete, so its presence is the proof.
    [ -d "$(jars)" ] && return 0
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    say "fetching Apache Kafka $version with Maven (once, about 45 MB)"
    cat >"$work/pom.xml" <<TEXT
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>postrider.test</groupId>
  <artifactId>broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <!-- Without this binding, the one of Kafka's own distribution, the broker logs nothing. -->
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
TEXT
    if ! mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies \
        -DoutputDirectory="$work/jars" -DincludeScope=runtime >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        rm -rf "$work"
        fail "Maven could not fetch Apache Kafka $version (above). Is there a way to Maven Central or a mirror of it?"
    fi
    # Two at once: the second finds the name taken and throws its own copy away.
    [ -d "$(jars)" ] || mv "$work/jars" "$(jars)"
    rm -rf "$work"
}

# --- one broker, in one folder ---------------------------------------------------------------------------------------
# DIR/way      docker or java             DIR/pid        the Java process, or the container's name
# DIR/port     of the broker              DIR/bootstrap  what KAFKA_BOOTSTRAP_SERVERS would be
# DIR/proxied  port of the second listener, if any
# DIR/sasl     port of the listener with SASL over TLS, DIR/mtls of the one with client certificates, if any
# DIR/log      what the broker says       DIR/owner      process id to outlive which makes no sense

# Below the range from which systems give out ports (32768 on Linux, 49152 elsewhere), so that no client's socket sits
# on it between `kill` and `restart`. What is given is meant for another listener already.
free_port() {
    local port try
    for ((try = 0; try < 50; try++)); do
        port=$((20000 + RANDOM % 12000))
        case " $* " in *" $port "*) continue ;; esac
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || {
            echo "$port"
            return 0
        }
    done
    return 1
}

# The settings that are the same however the broker is started. In short: one replica, quick groups, little waiting,
# little memory. The broker's session is short because after `kill` it may not register again before the old one is over.
settings() {
    cat <<'TEXT'
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
auto.create.topics.enable=false
delete.topic.enable=true
num.partitions=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
default.replication.factor=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
log.retention.check.interval.ms=5000
log.initial.task.delay.ms=1000
log.cleaner.backoff.ms=1000
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=1048576
TEXT
}

# Users of PLAIN and OAUTHBEARER are fixed here; those of SCRAM are made by an admin client. A token of OAUTHBEARER is an
# unsecured JWS, which Kafka takes where no validator is named.
security_settings() {
    local modules=org.apache.kafka.common.security folder=$1
    cat <<TEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL
ssl.keystore.type=PEM
ssl.keystore.location=$folder/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$folder/ca.pem
listener.name.mtls.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config=$modules.plain.PlainLoginModule required user_plain="plain-secret";
listener.name.sasl.scram-sha-512.sasl.jaas.config=$modules.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=$modules.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
TEXT
}

write_settings() {
    local folder=$1 port=$2 controller=$3 proxied sasl mtls listeners advertised
    listeners="PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller"
    advertised="PLAINTEXT://127.0.0.1:$port"
    if [ -n "${POSTRIDER_BROKER_PROXY:-}" ]; then
        proxied=$(free_port "$port" "$controller")
        echo "$proxied" >"$folder/proxied"
        listeners="$listeners,PROXIED://127.0.0.1:$proxied"
        advertised="$advertised,PROXIED://127.0.0.1:$POSTRIDER_BROKER_PROXY"
    fi
    if [ -n "${POSTRIDER_BROKER_SECURITY:-}" ]; then
        sasl=$(free_port "$port" "$controller" "${proxied:-}")
        mtls=$(free_port "$port" "$controller" "${proxied:-}" "$sasl")
        echo "$sasl" >"$folder/sasl"
        echo "$mtls" >"$folder/mtls"
        listeners="$listeners,SASL://127.0.0.1:$sasl,MTLS://127.0.0.1:$mtls"
        advertised="$advertised,SASL://127.0.0.1:$sasl,MTLS://127.0.0.1:$mtls"
    fi
    {
        settings
        # Of two lines with the same name the later one counts.
        [ -z "${POSTRIDER_BROKER_SECURITY:-}" ] || security_settings "$POSTRIDER_BROKER_SECURITY"
        echo "listeners=$listeners"
        echo "advertised.listeners=$advertised"
        echo "controller.quorum.voters=1@127.0.0.1:$controller"
        echo "log.dirs=$folder/data"
    } >"$folder/server.properties"
    # Warnings, and the one line that says the broker is up.
    cat >"$folder/log4j2.properties" <<'TEXT'
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.up.name = kafka.server.KafkaRaftServer
logger.up.level = info
TEXT
}

# Sets `java_line`, the beginning of every Java command. Not a function that runs Java: in the background that would be
# a shell with a child, and the process id to kill would be the shell's.
set_java_line() {
    java_line=("$(java_command)" "-Dlog4j2.configurationFile=file:$1/log4j2.properties" -cp "$(jars)/*")
}

# Starts what was prepared; does not wait.
launch() {
    local folder=$1
    if [ "$(cat "$folder/way")" = docker ]; then
        docker start "$(cat "$folder/pid")" >>"$folder/log" 2>&1
        return
    fi
    # Two forks: the broker is no job of this shell, so nothing is printed when it is killed, and Ctrl-C, which a
    # terminal sends to the whole group, does not reach it before the tests have ended.
    set_java_line "$folder"
    (
        # The last options are words: split them.
        "${java_line[@]}" -Xmx1g -XX:+ExitOnOutOfMemoryError $(cat "$folder/java-options") \
            kafka.Kafka "$folder/server.properties" \
            </dev/null >>"$folder/log" 2>&1 &
        echo $! >"$folder/pid"
    )
}

up() {
    local folder=$1 pid state
    pid=$(cat "$folder/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    if [ "$(cat "$folder/way")" = docker ]; then
        [ "$(docker inspect -f '{{.State.Running}}' "$pid" 2>/dev/null)" = true ]
        return
    fi
    kill -0 "$pid" 2>/dev/null || return 1
    # Where nothing collects orphans (some containers) a killed process stays as a zombie, and `kill -0` finds it. Its
    # first thread is a zombie before the others have ended and closed the sockets, hence the second question.
    state=$(sed -E 's/.*\) //' "/proc/$pid/stat" 2>/dev/null || true)
    [ "${state:0:1}" != Z ] || [ "$(echo "/proc/$pid/task"/*)" != "/proc/$pid/task/$pid" ]
}

# 0 when it takes requests, 1 when it has ended, 2 when time is up.
wait_until_up() {
    local folder=$1 seen=$2 tick
    for ((tick = 0; tick < start_seconds * 10; tick++)); do
        if [ "$(cat "$folder/way")" = docker ] && ((tick % 5 == 0)); then
            docker logs "$(cat "$folder/pid")" >"$folder/log" 2>&1 || true
        fi
        # The line comes after the node has joined itself and opened its listener; an open port alone proves less.
        if [ "$(grep -c 'Kafka Server started' "$folder/log" 2>/dev/null || true)" -gt "$seen" ]; then
            return 0
        fi
        up "$folder" || return 1
        sleep 0.1
    done
    return 2
}

signal_and_wait() {
    local folder=$1 signal=$2 seconds=$3 pid tick
    up "$folder" || return 0
    pid=$(cat "$folder/pid")
    if [ "$(cat "$folder/way")" = docker ]; then
        docker kill --signal "$signal" "$pid" >/dev/null 2>&1 || true
    else
        kill "-$signal" "$pid" 2>/dev/null || true
    fi
    for ((tick = 0; tick < seconds * 20; tick++)); do
        up "$folder" || return 0
        sleep 0.05
    done
    return 1
}

stop_broker() { signal_and_wait "$1" TERM "$stop_seconds" || kill_broker "$1"; }
kill_broker() { signal_and_wait "$1" KILL 10 || fail "the broker in $1 does not die"; }

# Kills the broker when its owner is gone, however that ended; ends by itself with the broker.
watch_owner() {
    local folder=$1 owner pid
    owner=$(cat "$folder/owner" 2>/dev/null) && [ -n "$owner" ] || return 0
    pid=$(cat "$folder/pid")
    (
        trap - EXIT INT TERM HUP
        while [ "$(cat "$folder/pid" 2>/dev/null)" = "$pid" ] && up "$folder"; do
            kill -0 "$owner" 2>/dev/null || {
                signal_and_wait "$folder" KILL 10 || true
                [ "$(cat "$folder/way" 2>/dev/null)" != docker ] || docker rm -f -v "$pid" || true
                break
            }
            sleep 1
        done
    ) </dev/null >/dev/null 2>&1 &
}

prepare() {
    local folder=$1 way=$2 port=$3 controller container options key value proxied
    if [ "$way" = java ]; then
        controller=$(free_port "$port")
        write_settings "$folder" "$port" "$controller"
        # A formatted folder knows neither ports nor paths, so one is kept: it saves a start of Java each time.
        if [ ! -d "$(jars)/formatted" ]; then
            set_java_line "$folder"
            # 16 bytes, as KRaft wants its cluster id; the value does not matter.
            "${java_line[@]}" kafka.tools.StorageTool format -t cG9zdHJpZGVyLXRlc3RzMQ \
                -c "$folder/server.properties" >>"$folder/log" 2>&1 || return 1
            cp -R "$folder/data" "$(jars)/formatted.$$"
            mv "$(jars)/formatted.$$" "$(jars)/formatted" 2>/dev/null || rm -rf "$(jars)/formatted.$$"
        else
            mkdir "$folder/data"
            # By name: of two that kept a copy at the same moment the second is inside the first.
            cp "$(jars)/formatted/meta.properties" "$(jars)/formatted/bootstrap.checkpoint" "$folder/data"
        fi
        return
    fi
    # The image reads a setting from the environment: KAFKA_, dots as underscores, upper case.
    options=(-e "KAFKA_LISTENERS=PLAINTEXT://:$port,CONTROLLER://:9093"
        -e "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:$port"
        -e "KAFKA_CONTROLLER_QUORUM_VOTERS=1@localhost:9093"
        -e "KAFKA_HEAP_OPTS=-Xmx1g")
    while IFS='=' read -r key value; do
        key=$(printf '%s' "$key" | tr '[:lower:].' '[:upper:]_')
        options+=(-e "KAFKA_$key=$value")
    done < <(settings)
    container="postrider-broker-$port-$$"
    if [ -n "${POSTRIDER_BROKER_PROXY:-}" ]; then
        proxied=$(free_port "$port")
        echo "$proxied" >"$folder/proxied"
        options+=(-p "127.0.0.1:$proxied:$proxied"
            -e "KAFKA_LISTENERS=PLAINTEXT://:$port,CONTROLLER://:9093,PROXIED://:$proxied"
            -e "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$POSTRIDER_BROKER_PROXY")
    fi
    docker create --name "$container" -p "127.0.0.1:$port:$port" "${options[@]}" "$image" >>"$folder/log" 2>&1
    echo "$container" >"$folder/pid"
}

show_log() {
    say "the end of $1/log:"
    tail -n 25 "$1/log" >&2 || true
}

start_broker() {
    local folder=$1 owner=$2 java_options=$3 way port try result
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    [ ! -e "$folder/bootstrap" ] || fail "$folder holds a broker already; \`restart\` starts it again"
    way=$(choose_way) || exit 1
    [ "$way" = docker ] || fetch_jars
    echo "$way" >"$folder/way"
    echo "$java_options" >"$folder/java-options"
    [ -z "$owner" ] || echo "$owner" >"$folder/owner"
    # A port that was free may be taken by the time the broker binds it: then another one, on empty data.
    for ((try = 0; try < 5; try++)); do
        rm -rf "$folder/data" "$folder/log"
        : >"$folder/log"
        port=$(free_port) || fail "no free port between 20000 and 32000"
        result=1
        if prepare "$folder" "$way" "$port" && launch "$folder"; then
            result=0
            wait_until_up "$folder" 0 || result=$?
        fi
        if [ "$result" = 0 ]; then
            echo "$port" >"$folder/port"
            echo "127.0.0.1:$port" >"$folder/bootstrap"
            watch_owner "$folder"
            return 0
        fi
        remove_broker "$folder"
        grep -qiE 'already in use|already allocated|failed to bind' "$folder/log" || break
        say "port $port was taken meanwhile; trying another"
    done
    show_log "$folder"
    [ "$result" != 2 ] || fail "the broker was not up after $start_seconds s (log above)"
    fail "the broker did not start (log above)"
}

restart_broker() {
    local folder=$1 seen
    stop_broker "$folder"
    seen=$(grep -c 'Kafka Server started' "$folder/log" || true)
    launch "$folder" && wait_until_up "$folder" "$seen" || {
        show_log "$folder"
        fail "the broker did not start again (log above)"
    }
    watch_owner "$folder"
}

# Takes it down for good: nobody wants the data, so there is no point in a graceful end.
remove_broker() {
    local folder=$1
    up "$folder" && signal_and_wait "$folder" KILL 10 || true
    if [ "$(cat "$folder/way" 2>/dev/null)" = docker ]; then
        docker rm -f -v "$(cat "$folder/pid" 2>/dev/null)" >/dev/null 2>&1 || true
    fi
    rm -f "$folder/pid" "$folder/bootstrap"
}

# --- run -------------------------------------------------------------------------------------------------------------

folder=
child=

clean_up() {
    trap - EXIT INT TERM HUP
    [ -n "$folder" ] || return 0
    remove_broker "$folder"
    rm -rf "$folder"
}

interrupted() {
    local code=$1
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        # The command has a process group of its own, so this reaches all of it.
        kill -TERM -- "-$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    exit "$code"
}

run() {
    local code=0
    if [ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ]; then
        exec "$@"
    fi
    folder=$(mktemp -d "${TMPDIR:-/tmp}/postrider-broker.XXXXXX")
    trap clean_up EXIT
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
    trap 'interrupted 129' HUP
    start_broker "$folder" "$$" ""
    export KAFKA_BOOTSTRAP_SERVERS
    KAFKA_BOOTSTRAP_SERVERS=$(cat "$folder/bootstrap")
    # In the background, because bash runs a trap only after a command in the foreground has ended.
    set -m
    "$@" </dev/null &
    child=$!
    set +m
    wait "$child" || code=$?
    child=
    exit "$code"
}

need_folder() {
    [ $# = 2 ] && [ -n "$2" ] || { usage >&2; exit 2; }
}

# An absolute path, of a folder that holds a broker.
held() {
    [ -e "$1/bootstrap" ] || fail "there is no broker in $1; \`tests/broker.sh start $1\` starts one"
    (cd "$1" && pwd)
}

case "${1:-}" in
    run)
        [ "${2:-}" = -- ] && [ $# -ge 3 ] || { usage >&2; exit 2; }
        shift 2
        run "$@"
        ;;
    start)
        need_folder "$@"
        # The quick compiler alone: half the processor time to start, which is most of such a broker's life.
        start_broker "$2" "${POSTRIDER_BROKER_OWNER:-}" -XX:TieredStopAtLevel=1
        cat "$2/bootstrap"
        ;;
    stop | kill | remove | restart)
        need_folder "$@"
        held_folder=$(held "$2")
        "$1_broker" "$held_folder"
        ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
