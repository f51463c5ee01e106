// A worker of everything in workflows.mjs, until SIGTERM: `node worker.mjs ADDRESS HUB [filtered [VERSION]]`.

import { TaskHubGrpcWorker, VersionFailureStrategy, VersionMatchStrategy } from "@microsoft/durabletask-js";

import { connection } from "./connection.mjs";
import { activities, orchestrators } from "./workflows.mjs";

const [filtered, version] = process.argv.slice(4);
const worker = new TaskHubGrpcWorker({
  ...connection,
  workItemFilters: filtered && "auto",
  versioning: version && { version, matchStrategy: VersionMatchStrategy.Strict, failureStrategy: VersionFailureStrategy.Reject },
});
for (const [name, run] of Object.entries(orchestrators)) {
  worker.addNamedOrchestrator(name, run);
}
for (const [name, run] of Object.entries(activities)) {
  worker.addNamedActivity(name, run);
}
process.once("SIGTERM", async () => {
  await worker.stop();
  process.exit(0);
});
await worker.start();
console.log("ready");
