// What a Node.js program sees of the service with nothing but NATS's own packages; prints JSON.
import { connect } from "@nats-io/transport-node";
import { Svcm } from "@nats-io/services";

const [url, taskId] = process.argv.slice(2);

async function all(answers) {
  const found = [];
  for await (const answer of await answers) found.push(answer);
  return found;
}

async function called(nc, subject, body) {
  const answer = await nc.request(subject, JSON.stringify(body), { timeout: 5000 });
  return {
    code: answer.headers?.get("Nats-Service-Error-Code") ?? "",
    error: answer.headers?.get("Nats-Service-Error") ?? "",
    body: answer.json(),
  };
}

// Unlike other clients this one does not read the user from the URL.
const { host, username, password } = new URL(url);
const nc = await connect({ servers: host, user: username || undefined, pass: password });
const services = new Svcm(nc).client({ strategy: "stall", maxWait: 2000 });
const info = await all(services.info("planning"));
const { subject } = info[0].endpoints.find((endpoint) => endpoint.name === "tasks_get");
const got = await called(nc, subject, { id: taskId });
const mistyped = await called(nc, subject, { ident: taskId });

console.log(
  JSON.stringify({
    pings: await all(services.ping()),
    info,
    got,
    mistyped,
    stats: await all(services.stats("planning", info[0].id)),
  }),
);
await nc.close();
