// Runs scenarios beside each other and prints a line of JSON for each: {"scenario": ..., "result" or "error": ...}.
// `node client.mjs ADDRESS HUB [SCENARIO...]`; without names, all that need no other worker.

import { TaskHubGrpcClient } from "@microsoft/durabletask-js";

import { connection } from "./connection.mjs";
import { ALONE, ASKED, scenarios } from "./scenarios.mjs";

const known = scenarios(new TaskHubGrpcClient(connection));
const asked = process.argv.slice(4);
const wanted = asked.length ? asked : Object.keys(known).filter((name) => !ASKED.includes(name));
const alone = wanted.filter((name) => ALONE.includes(name));
const together = wanted.filter((name) => !ALONE.includes(name));

async function run(scenario) {
  let line;
  try {
    line = { scenario, result: (await known[scenario]()) ?? null };
  } catch (error) {
    line = { scenario, error: error.stack };
  }
  console.log(JSON.stringify(line));
}

await Promise.all(together.map(run));
for (const name of alone) {
  await run(name);
}
// A wait that timed out is still open: the SDK abandons it, and it would keep the process alive.
process.exit(0);
