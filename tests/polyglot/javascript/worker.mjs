// A worker of everything in workflows.mjs and entities.mjs, until SIGTERM: `node worker.mjs ADDRESS HUB [filtered [VERSION]]`.

import { TaskHubGrpcWorker, VersionFailureStrategy, VersionMatchStrategy } from "@microsoft/durabletask-js";

import { connection } from "./connection.mjs";
import { entities, users } from "./entities.mjs";
import { activities, orchestrators } from "./workflows.mjs";

const [filtered, version] = process.argv.slice(4);
const worker = new TaskHubGrpcWorker({
  ...connection,
  workItemFilters: filtered && "auto",
  versioning: version && { version, matchStrategy: VersionMatchStrategy.Strict, failureStrategy: VersionFailureStrategy.Reject },
});
for (const [name, run] of Object.entries({ ...orchestrators, ...users })) {
  worker.addNamedOrchestrator(name, run);
}
for (const [name, run] of Object.entries(activities)) {
  worker.addNamedActivity(name, run);
}
for (const [name, make] of Object.entries(entities)) {
  worker.addNamedEntity(name, make);
}
process.once("SIGTERM", async () => {
  await worker.stop();
  process.exit(0);
});
await worker.start();
console.log("ready");
