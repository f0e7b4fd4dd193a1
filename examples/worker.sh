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
            '' | '{"type":'*'"retryable":true'*) kill -0 $$ 2>/dev/null && sleep 1 || exit 1 ;;
            *) break ;;
        esac
    done
    printf '%s\n' "$reply"
}

# Of what is read: the first value of this name, an id or a number.
value() { grep -o "\"$1\":\"\{0,1\}[0-9a-f-]*" | head -n 1 | sed 's/.*[:"]//'; }

# Of what is read: its text as a JSON string. What cannot be stored becomes a question mark, and what
# is no UTF-8 is left out.
quoted() {
    LC_ALL=C tr '\000-\010\013-\037' '?' | iconv -c -f UTF-8 -t UTF-8 |
        sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g' |
        awk 'BEGIN { printf "\"" } { printf "%s%s", n++ ? "\\n" : "", $0 } END { printf "\"" }'
}

# The beginning of a file as a JSON string, with a mark where it was cut.
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

# Says that a task is done, by what it printed; what is refused for its size is said in fewer words.
complete() {
    [ "$(wc -c <"$1")" -le 15000 ] || keep "$1"
    for most in 15000 500; do
        case $(request db.tasks.complete "{$who,\"summary\":$(beginning "$1" $most)}") in
            '{"type":'*'"status":400'* | '{"type":'*'"status":413'*) ;;
            *) return ;;
        esac
    done
}

# In the background, as long as the worker is there: the agent lives, and keeps the lease of the
# task that it has.
live() {
    while sleep "$interval" && kill -0 $$ 2>/dev/null; do
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
        complete "$state/output"
        echo "completed $task"
    else
        reason=$(printf '%s ended with status %s.' "$1" $status | head -c 1000 | quoted)
        request db.tasks.block "{$who,\"reason\":$reason}" >/dev/null
        echo "blocked $task"
    fi
done
