#!/bin/sh
# Gives each ready task, as JSON, to a command on its standard input: worker.sh URL COMMAND...
#
# It needs nothing but sh and the `nats` command line tool. That tool opens a new connection for each
# request, so only its lease tells the service that this agent has ended.

set -u
[ $# -ge 2 ] || { echo "usage: worker.sh URL COMMAND..." >&2; exit 2; }
url=$1
shift
interval=${HEARTBEAT_SECONDS:-10}
lease=$((interval * 3))
state=$(mktemp -d)

# request SUBJECT BODY: the reply, or the refusal ({"type":...). Until there is one the request is
# sent again, with the same idempotency key; the tool prints nothing if no answer came.
request() {
    key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    while :; do
        reply=$(nats --server "$url" --timeout 5s request --raw --no-templates \
            -H "Nats-Msg-Id:$key" "$1" "$2" </dev/null 2>/dev/null)
        case $reply in
            '' | '{"type":'*'"retryable":true'*) kill -0 $$ 2>/dev/null && sleep 1 || exit 1 ;;
            *) break ;;
        esac
    done
    printf '%s\n' "$reply"
}

# The first value with this name in the input, an id or a number.
value() { grep -o "\"$1\":\"\{0,1\}[0-9a-f-]*" | head -n 1 | sed 's/.*[:"]//'; }

# The input as a JSON string. Characters that cannot be stored become question marks, and bytes that
# are not UTF-8 are left out.
quoted() {
    LC_ALL=C tr '\000-\010\013-\037' '?' | iconv -c -f UTF-8 -t UTF-8 |
        sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g' |
        awk 'BEGIN { printf "\"" } { printf "%s%s", n++ ? "\\n" : "", $0 } END { printf "\"" }'
}

# The beginning of a file as a JSON string, with a mark if it was cut.
beginning() {
    size=$(wc -c <"$1" | tr -d ' ')
    {
        head -c "$2" "$1"
        [ "$size" -le "$2" ] ||
            printf ' … cut: %s of %s bytes; the whole is in the log of the agent' "$2" "$size"
    } | quoted
}

# Appends a file to the agent's log, in pieces that fit into a message.
keep() {
    size=$(wc -c <"$1" | tr -d ' ')
    piece=0
    while [ $((piece * 15000)) -lt "$size" ] && [ $piece -lt 300 ]; do
        text=$(dd if="$1" bs=15000 skip=$piece count=1 2>/dev/null | quoted)
        request db.log_chunks.append "{\"agent_id\":\"$agent\",\"content\":$text}" >/dev/null
        piece=$((piece + 1))
    done
}

# Completes a task with its output as the summary; with less of it if it is refused for its size.
complete() {
    [ "$(wc -c <"$1")" -le 15000 ] || keep "$1"
    for most in 15000 500; do
        case $(request db.tasks.complete "{$who,\"summary\":$(beginning "$1" $most)}") in
            '{"type":'*'"status":400'* | '{"type":'*'"status":413'*) ;;
            *) return ;;
        esac
    done
}

# In the background, as long as the worker runs: sends heartbeats, and renews the lease of the task in
# hand.
live() {
    while sleep "$interval" && kill -0 $$ 2>/dev/null; do
        case $(request db.agents.heartbeat "{\"id\":\"$agent\",\"incarnation\":1}") in
            '{"type":'* | *'"cancel_requested":true'*) kill -s TERM $$ && return ;;
        esac
        [ -e "$state/claim" ] || continue
        case $(request db.tasks.renew "{$(cat "$state/claim"),\"lease_seconds\":$lease}") in
            '{"type":'*) kill "$(cat "$state/pid")" ;; # lost: its result would be refused
        esac
    done
}

# Ends in good order: a task in hand goes back to the queue.
stop() {
    trap '' TERM INT
    kill "$alive" $(cat "$state/pid" 2>/dev/null) 2>/dev/null
    request db.agents.stop "{\"id\":\"$agent\",\"incarnation\":1,\"reason\":\"$1\"}" >/dev/null
    rm -rf "$state"
    exit 0
}

agent=$(request db.agents.register \
    "{\"provider\":\"shell\",\"pid\":$$,\"heartbeat_interval_s\":$interval}" | value id)
[ -n "$agent" ] || { echo "the agent was refused" >&2; exit 1; }
echo "agent $agent"
live &
alive=$!
trap 'stop user_requested' TERM INT

while :; do
    claim=$(request db.tasks.claim \
        "{\"agent_id\":\"$agent\",\"incarnation\":1,\"lease_seconds\":$lease}")
    case $claim in
        '{"tasks":[{'*) ;;
        *) sleep 2 & wait $!; continue ;;
    esac
    task=$(printf '%s' "$claim" | value id)
    who="\"id\":\"$task\",\"attempt\":$(printf '%s' "$claim" | value attempt)"

    printf '%s\n' "$claim" | "$@" >"$state/output" &
    echo $! >"$state/pid"
    printf '%s' "$who" >"$state/claim"
    wait "$(cat "$state/pid")"
    status=$?
    rm -f "$state/claim" "$state/pid"

    if [ $status -eq 0 ]; then
        complete "$state/output"
        echo "completed $task"
    else
        reason=$(printf '%s ended with status %s.' "$1" $status | head -c 1000 | quoted)
        request db.tasks.block "{$who,\"reason\":$reason}" >/dev/null
        echo "blocked $task"
    fi
done
