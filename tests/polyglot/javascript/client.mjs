// Runs scenarios beside each other and prints a line of JSON for each: {"scenario": ..., "result" or "error": ...}.
// `node client.mjs ADDRESS HUB [SCENARIO...]`; without names, all of them.

import { TaskHubGrpcClient } from "@microsoft/durabletask-js";

import { connection } from "./connection.mjs";
import { scenarios } from "./scenarios.mjs";

const wanted = process.argv.slice(4);
const known = scenarios(new TaskHubGrpcClient(connection));

async function run(scenario) {
  try {
    return { scenario, result: (await known[scenario]()) ?? null };
  } catch (error) {
    return { scenario, error: error.stack };
  }
}

await Promise.all((wanted.length ? wanted : Object.keys(known)).map(async (name) => console.log(JSON.stringify(await run(name)))));
// A wait that timed out is still open: the SDK abandons it, and it would keep the process alive.
process.exit(0);
