#!/bin/sh
# Gives each ready task, as JSON, to a command on its standard input: worker.sh URL COMMAND...
#
# It needs nothing but sh and the `nats` command line tool. That tool connects anew for each
# request, so the service learns of the end of this agent by its lease alone.

set -u
[ $# -ge 2 ] || { echo "usage: worker.sh URL COMMAND..." >&2; exit 2; }
url=$1
shift
interval=${HEARTBEAT_SECONDS:-10}
lease=$((interval * 3))
state=$(mktemp -d)

# request SUBJECT BODY: the reply, or the refusal ({"type":...). Until there is one it is sent
# again, with the same idempotency key; the tool tells silence by printing nothing.
request() {
    key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    while :; do
        reply=$(nats --server "$url" --timeout 5s request --raw --no-templates \
            -H "Nats-Msg-Id:$key" "$1" "$2" </dev/null 2>/dev/null)
        case $reply in
            '' | '{"type":'*'"retryable":true'*) sleep 1 ;;
            *) break ;;
        esac
    done
    printf '%s\n' "$reply"
}

# Of what is read: the first value of this name, an id or a number.
value() { grep -o "\"$1\":\"\{0,1\}[0-9a-f-]*" | head -n 1 | sed 's/.*[:"]//'; }

# Of what is read: its beginning, as a JSON string.
quoted() {
    head -c 15000 | iconv -c -f UTF-8 -t UTF-8 | tr -d '\000-\010\013-\037' |
        sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g' |
        awk 'BEGIN { printf "\"" } { printf "%s%s", n++ ? "\\n" : "", $0 } END { printf "\"" }'
}

# In the background: the agent lives, and keeps the lease of the task that it has.
live() {
    while sleep "$interval"; do
        case $(request db.agents.heartbeat "{\"id\":\"$agent\",\"incarnation\":1}") in
            '{"type":'* | *'"cancel_requested":true'*) kill -s TERM $$ && return ;;
        esac
        [ -e "$state/claim" ] || continue
        case $(request db.tasks.renew "{$(cat "$state/claim"),\"lease_seconds\":$lease}") in
            '{"type":'*) kill "$(cat "$state/pid")" ;; # lost: what it would say is refused
        esac
    done
}

# Ends in good order: what the agent has goes back to the queue.
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
        request db.tasks.complete "{$who,\"summary\":$(quoted <"$state/output")}" >/dev/null
        echo "completed $task"
    else
        request db.tasks.block "{$who,\"reason\":\"$1 ended with status $status.\"}" >/dev/null
        echo "blocked $task"
    fi
done
