// Gives each ready task, as JSON, to a command on its standard input:
//
//     node worker.mjs URL COMMAND…
//
// It needs Node.js 20 and the package @nats-io/transport-node, and nothing of fleetbus.

import { randomUUID } from "node:crypto";
import { spawn } from "node:child_process";
import { setTimeout as pause } from "node:timers/promises";
import { connect, headers } from "@nats-io/transport-node";

const [address, command, ...rest] = process.argv.slice(2);
const url = new URL(address);
const interval = Number(process.env.HEARTBEAT_SECONDS ?? 10);
const leaseSeconds = 3 * interval;
const id = randomUUID();

// If this connection is lost, the agent with its name comes under suspicion.
const nc = await connect({
  servers: url.host,
  user: url.username || undefined,
  pass: url.password || undefined,
  name: id,
  maxReconnectAttempts: -1,
});

class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** The reply. A request that may be retried is sent again, with the same idempotency key. */
async function request(subject, body) {
  const key = headers();
  key.set("Nats-Msg-Id", randomUUID());
  const data = JSON.stringify(body);
  for (;;) {
    try {
      const message = await nc.request(subject, data, { headers: key, timeout: 5000 });
      const reply = message.json();
      if (!message.headers?.has("Nats-Service-Error-Code")) return reply;
      if (!reply.retryable) throw new Refused(reply);
    } catch (error) {
      if (error instanceof Refused || nc.isClosed()) throw error;
    }
    await pause(500);
  }
}

const MOST = 4 * 1024 * 1024; // characters of an output that are kept

let task = null; // the claimed task: { id, attempt }
let child = null; // the process that does it
let ended = null; // why the worker ends, once it does
let wake = () => {}; // ends the pause while there is nothing to do

function end(reason) {
  ended ??= reason;
  child?.kill();
  wake();
}

/** The text as it can be stored; if it is too long, its beginning with a mark. */
function storable(text, limit = Infinity) {
  const clean = text.replaceAll("\0", "\ufffd").toWellFormed();
  if (clean.length <= limit) return clean;
  const mark = ` … cut: of ${clean.length} characters; more of it is in the agent's log`;
  return clean.slice(0, limit - mark.length).toWellFormed() + mark;
}

/** Appends a text to the agent's log, in pieces that fit into a message. */
async function log(text) {
  const clean = storable(text);
  for (let start = 0; start < clean.length; start += 64 * 1024) {
    const content = clean.slice(start, start + 64 * 1024).toWellFormed();
    await request("db.log_chunks.append", { agent_id: id, content });
  }
}

/** Reports the outcome of a task; in fewer words if it is refused for its size. */
async function say(subject, mine, name, text, limit) {
  if (text.length > limit) await log(text).catch((refusal) => console.error(refusal.message));
  try {
    return await request(subject, { ...mine, [name]: storable(text, limit) });
  } catch (refusal) {
    if (![400, 413].includes(refusal.problem?.status)) throw refusal;
    return request(subject, { ...mine, [name]: storable(text, 500) });
  }
}

/** Sends heartbeats, and renews the lease of the task in hand. */
async function live() {
  while (!ended) {
    await pause(interval * 1000, undefined, { ref: false });
    try {
      const heard = await request("db.agents.heartbeat", { id, incarnation: 1 });
      if (heard.cancel_requested) end("user_requested");
    } catch {
      end("lost");
    }
    if (task) {
      const renewal = { ...task, lease_seconds: leaseSeconds };
      await request("db.tasks.renew", renewal).catch(() => child?.kill());
    }
  }
}

/** The output of the command, given this on its standard input, and its exit code. */
function run(input) {
  return new Promise((resolve, reject) => {
    child = spawn(command, rest, { stdio: ["pipe", "pipe", "inherit"] });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      if (output.length < MOST) output += text;
    });
    child.on("error", reject).on("close", (code) => resolve({ code, output }));
    child.stdin.on("error", () => {}); // the command need not read it
    child.stdin.end(input);
  });
}

process.on("SIGTERM", () => end("interrupted")).on("SIGINT", () => end("interrupted"));
const agent = await request("db.agents.register", {
  id,
  provider: "node",
  pid: process.pid,
  heartbeat_interval_s: interval,
});
console.log("agent", agent.name);
live();

// Each event is a sign that there may be something to claim; it also looks without one.
for (const fact of ["created", "ready", "released", "retried", "lease_expired"]) {
  nc.subscribe(`events.task.${fact}.*`, { callback: () => wake() });
}

while (!ended) {
  const claim = { agent_id: id, incarnation: 1, lease_seconds: leaseSeconds };
  const [claimed] = (await request("db.tasks.claim", claim)).tasks;
  if (!claimed) {
    await Promise.race([new Promise((resolve) => (wake = resolve)), pause(5000)]);
    continue;
  }
  task = { id: claimed.task.id, attempt: claimed.task.attempt };
  const { code, output } = await run(JSON.stringify(claimed));
  const mine = task;
  task = child = null;
  if (ended) break; // stopping the agent releases the task
  const verdict =
    code === 0
      ? say("db.tasks.complete", mine, "summary", output, 20_000)
      : say("db.tasks.block", mine, "reason", `${command} ended with status ${code}.`, 2_000);
  await verdict.then(
    (done) => console.log(done.status, done.name),
    (refusal) => console.error(refusal.message), // the task was taken away; continue with the next one
  );
}

if (ended !== "lost") await request("db.agents.stop", { id, incarnation: 1, reason: ended });
await nc.close();
