// What clients do: each scenario returns what it saw, as JSON. Scenarios run beside each other, so their ids differ.

import { setTimeout as sleep } from "node:timers/promises";

import { OrchestrationStatus, PurgeInstanceCriteria, terminateOptions } from "@microsoft/durabletask-js";

import { entityScenarios } from "./entity_scenarios.mjs";

/** Those that others would suffer from: they run when the others have ended. */
export const ALONE = ["purge_by_criteria"];

/** Those that need a Python worker: they run only when they are named. */
export const ASKED = ["calls_python"];

const SECONDS = 30;
const MEGABYTE = 1_000_000;
const TEXTS = ["größer 🎉 漢字", "line\nbreak\ttab", "\u0000\u0001\u001f", "quote\"'\\", ""];

const parsed = (text) => (text === undefined || text === "" ? null : JSON.parse(text));

/** Return what the tests look at in a state. */
function shown(state) {
  if (state === undefined) {
    return null;
  }
  const details = state.failureDetails;
  return {
    status: OrchestrationStatus[state.runtimeStatus],
    output: parsed(state.serializedOutput),
    failure: details === undefined ? null : { type: details.errorType, message: details.message, traced: Boolean(details.stackTrace) },
  };
}

export function scenarios(client) {
  const start = (name, input, options) => client.scheduleNewOrchestration(name, input, options);
  const end = (id) => client.waitForOrchestrationCompletion(id, true, SECONDS);
  const running = (id) => client.waitForOrchestrationStart(id, false, SECONDS);
  const raise = (id, name, data) => client.raiseOrchestrationEvent(id, name, data);
  const run = async (name, input, options) => shown(await end(await start(name, input, options)));
  const status = async (id) => shown(await client.getOrchestrationState(id))?.status ?? null;

  /** Wait for something that a client can only ask for. */
  async function until(read, holds) {
    for (let left = 1_000; left > 0; left--) {
      const value = await read();
      if (holds(value)) {
        return value;
      }
      await sleep(20);
    }
    throw new Error(`it did not happen; the last value was ${JSON.stringify(await read())}`);
  }

  /** Return the text of the error that a call ends with. */
  async function refusal(call) {
    try {
      await call;
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
    return null;
  }

  async function all(pageable) {
    const sizes = [];
    const states = [];
    for await (const page of pageable.asPages()) {
      sizes.push(page.values.length);
      states.push(...page.values);
    }
    return { sizes, states };
  }

  return {
    empty: () => run("empty"),
    chain: () => run("chain", 10),
    fan_out: () => run("fan_out", 200),
    family: () => run("family", 5),

    async lineage() {
      const parent = await start("lineage_parent", null, { instanceId: "the-parent" });
      return { top: await run("lineage", null, { instanceId: "nobodys-child" }), child: shown(await end(parent)) };
    },

    async timers() {
      return { future: await run("sleeper", 400), past: await run("sleeper", -10_000) };
    },

    async first_clock() {
      const before = Date.now();
      return (await run("clock")).output - before;
    },

    async events() {
      const id = await start("listener", 10);
      for (let number = 0; number < 10; number++) {
        await raise(id, number % 2 ? "NEWS" : "news", number);
      }
      return shown(await end(id));
    },

    async event_before_wait() {
      const id = await start("late_listener");
      await raise(id, "news", "early");
      return shown(await end(id));
    },

    async event_timeouts() {
      const id = await start("impatient", 30_000);
      await raise(id, "approval");
      return { event: shown(await end(id)), timeout: await run("impatient", 200) };
    },

    async farthest_timer() {
      const id = await start("patient");
      await running(id);
      await raise(id, "news");
      return shown(await end(id));
    },

    async event_between_orchestrations() {
      const id = await start("listener", 1);
      await run("sender", id);
      return shown(await end(id));
    },

    async continue_as_new() {
      const id = await start("collector");
      for (let number = 0; number < 10; number++) {
        await raise(id, "item", number);
      }
      return { events: shown(await end(id)), counter: await run("counter", 0) };
    },

    async failures() {
      return {
        activity: await run("failing_activity", "no nails"),
        nothing: await run("failing_with_nothing"),
        orchestration: await run("failing", "no screws"),
        child: await run("failing_child", "no bolts"),
        unknown_activity: await run("unknown_activity"),
        unknown_orchestration: await run("nobody_has_this"),
      };
    },

    async retries() {
      return {
        activity: await run("retrying", "activity"),
        child: await run("retrying_child", "child"),
        in_vain: await run("retrying_in_vain", "never"),
      };
    },

    async terminate() {
      const id = await start("listener", 1);
      await running(id);
      await client.terminateOrchestration(id, { reason: "enough" });
      const ended = shown(await end(id));
      await client.terminateOrchestration(id, "again");
      await client.terminateOrchestration("terminate-of-nobody");
      return { ended, again: shown(await end(id)) };
    },

    async terminate_recursively() {
      const children = ["with-them-1", "with-them-2"];
      const id = await start("waiting_family", children);
      await Promise.all(children.map(running));
      await client.terminateOrchestration(id, terminateOptions({ recursive: true, output: "all of you" }));
      return Promise.all([id, ...children].map(async (one) => shown(await end(one))));
    },

    async terminate_alone() {
      const id = await start("waiting_family", ["without-it"]);
      await running("without-it");
      await client.terminateOrchestration(id, terminateOptions({ recursive: false }));
      const ended = shown(await end(id));
      const before = await status("without-it");
      await raise("without-it", "news", 1);
      return { ended, before, child: shown(await end("without-it")) };
    },

    async terminated_child() {
      const id = await start("tolerant", "terminated-child");
      await running("terminated-child");
      await client.terminateOrchestration("terminated-child", "no more");
      return shown(await end(id));
    },

    async terminate_scheduled() {
      const id = await start("empty", null, { startAt: new Date(Date.now() + 3_600_000) });
      await client.terminateOrchestration(id, "never");
      return shown(await end(id));
    },

    async suspend() {
      const id = await start("listener", 3);
      await raise(id, "news", 0);
      await client.suspendOrchestration(id);
      await until(() => status(id), (found) => found === "SUSPENDED");
      await raise(id, "news", 1);
      await raise(id, "news", 2);
      const before = await status(id);
      await client.resumeOrchestration(id);
      return { before, after: shown(await end(id)) };
    },

    async terminate_suspended() {
      const id = await start("listener", 1);
      await client.suspendOrchestration(id);
      await until(() => status(id), (found) => found === "SUSPENDED");
      await client.terminateOrchestration(id, "asleep");
      return shown(await end(id));
    },

    async custom_status() {
      const id = await start("reporting");
      const read = async () => (await client.getOrchestrationState(id)).serializedCustomStatus;
      const found = [];
      for (const wanted of ['{"step":1}', '""']) {
        found.push(await until(read, (status) => status === wanted));
        await raise(id, "news");
      }
      found.push((await end(id)).serializedCustomStatus);
      return found.map(parsed);
    },

    async versions() {
      return {
        given: await run("versioned", null, { version: "1.2.3" }),
        none: await run("versioned"),
        family: await run("versioned_parent", null, { version: "1.0" }),
      };
    },

    async tags() {
      const tags = { team: "blue", "ünï": "çödé" };
      const id = await start("tagged", null, { instanceId: "tagged", tags });
      const state = await end(id);
      const child = await client.getOrchestrationState("tagged-child");
      const history = await client.getOrchestrationHistory(id);
      const scheduled = history.find((event) => event.type === "TaskScheduled");
      return { own: state.tags, child: child.tags, activity: scheduled.tags };
    },

    async scheduled_start() {
      const far = await start("clock", null, { startAt: new Date(Date.now() + 3_600_000) });
      const before = await status(far);
      await client.terminateOrchestration(far);
      const startAt = new Date(Date.now() + 500);
      const id = await start("clock", null, { startAt });
      return { before, late: shown(await end(id)).output - startAt.getTime() };
    },

    async ids_in_use() {
      const id = await start("listener", 1, { instanceId: "in-use" });
      await running(id);
      const refused = await refusal(start("listener", 1, { instanceId: id }));
      await client.terminateOrchestration(id);
      await end(id);
      return { refused, replaced: await run("empty", null, { instanceId: id }) };
    },

    async bad_input() {
      return { name: await refusal(start("")), id: await refusal(start("empty", null, { instanceId: "@entity@key" })) };
    },

    async unknown_instance() {
      return {
        state: await status("nobody"),
        wait: await refusal(client.waitForOrchestrationCompletion("nobody", true, 0.3)),
        history: await client.getOrchestrationHistory("nobody"),
        purged: (await client.purgeOrchestration("nobody")).deletedInstanceCount,
      };
    },

    async history() {
      const id = await start("three_steps", { of: "three" }, { instanceId: "three-steps" });
      await end(id);
      return client.getOrchestrationHistory(id);
    },

    async guids() {
      return run("guids");
    },

    async unicode() {
      const id = await start("listener", TEXTS.length, { instanceId: "größer 🎉 漢字/\\#?%_'" });
      for (const text of TEXTS) {
        await raise(id, "news", text);
      }
      const state = await end(id);
      return { same: state.instanceId === id, got: parsed(state.serializedOutput), sent: TEXTS };
    },

    async megabyte() {
      const text = "x".repeat(MEGABYTE);
      const id = await start("late_listener", text);
      await raise(id, "news", text);
      const state = await end(id);
      return [parsed(state.serializedInput) === text, parsed(state.serializedOutput) === text];
    },

    async many_at_once() {
      const ids = await Promise.all(Array.from({ length: 30 }, () => start("chain", 3)));
      return (await Promise.all(ids.map(end))).map((state) => parsed(state.serializedOutput));
    },

    async query() {
      await Promise.all(Array.from({ length: 7 }, (_, number) => run("empty", number, { instanceId: `query-%_${number}` })));
      await start("listener", 1, { instanceId: "query-%_live" });
      await run("empty", null, { instanceId: "query-xx1" });
      const prefixed = { instanceIdPrefix: "query-%_" };
      const paged = await all(client.getAllInstances({ ...prefixed, pageSize: 3, fetchInputsAndOutputs: true }));
      const completed = await all(client.getAllInstances({ ...prefixed, statuses: [OrchestrationStatus.COMPLETED] }));
      await client.terminateOrchestration("query-%_live");
      return {
        sizes: paged.sizes,
        ids: paged.states.map((state) => state.instanceId).sort(),
        outputs: completed.states.map((state) => state.serializedOutput ?? null),
        completed: completed.states.length,
      };
    },

    async purge() {
      const live = await start("listener", 1);
      await running(live);
      const done = await start("empty");
      await end(done);
      const counts = [];
      for (const id of [live, done, done]) {
        counts.push((await client.purgeOrchestration(id)).deletedInstanceCount);
      }
      await client.terminateOrchestration(live);
      return { counts, gone: await status(done) };
    },

    async purge_recursively() {
      const id = await start("tagged", null, { instanceId: "purged" });
      await end(id);
      const purged = await client.purgeOrchestration(id, { recursive: true });
      return { count: purged.deletedInstanceCount, child: await status("purged-child") };
    },

    async list_ids() {
      const from = new Date();
      const ids = ["listed-1", "listed-2", "listed-3"];
      for (const instanceId of ids) {
        await run("empty", null, { instanceId });
      }
      const found = [];
      let page;
      do {
        page = await client.listInstanceIds({ completedTimeFrom: from, pageSize: 2, lastInstanceKey: page?.continuationToken });
        found.push(...page.values);
      } while (page.hasMoreResults);
      return found.filter((id) => ids.includes(id));
    },

    async purge_by_criteria() {
      const from = new Date();
      const failed = await start("failing", "to be purged");
      const done = await start("empty");
      await Promise.all([failed, done].map(end));
      const criteria = new PurgeInstanceCriteria();
      criteria.setCreatedTimeFrom(from);
      criteria.setRuntimeStatusList([OrchestrationStatus.FAILED]);
      const purged = await client.purgeOrchestration(criteria);
      return { count: purged.deletedInstanceCount, failed: await status(failed), done: await status(done) };
    },

    async restart() {
      const id = await start("chain", 4, { instanceId: "restarted", version: "3.0", tags: { kept: "yes" } });
      await end(id);
      const same = await client.restartOrchestration(id, false);
      const again = await end(same);
      const other = await client.restartOrchestration(id, true);
      const live = await start("listener", 1);
      await running(live);
      const refused = await refusal(client.restartOrchestration(live, false));
      const twin = await client.restartOrchestration(live, true);
      await raise(twin, "news", "twin");
      const result = {
        same: same === id,
        again: shown(again),
        tags: again.tags,
        other: other !== id && shown(await end(other)),
        refused,
        twin: shown(await end(twin)),
        nobody: await refusal(client.restartOrchestration("restart-of-nobody", false)),
      };
      await client.terminateOrchestration(live);
      return result;
    },

    async rewind() {
      const id = await start("rewindable", "rewound");
      const failed = shown(await end(id));
      await client.rewindInstance(id, "try again");
      const parent = await start("rewindable_parent", "rewound child");
      await end(parent);
      await client.rewindInstance(parent, "try again");
      const live = await start("listener", 1);
      await running(live);
      const refused = await refusal(client.rewindInstance(live, "too early"));
      await client.terminateOrchestration(live);
      return {
        failed: failed.status,
        after: shown(await end(id)),
        family: shown(await end(parent)),
        refused,
        nobody: await refusal(client.rewindInstance("rewind-of-nobody", "what?")),
      };
    },

    calls_python: () => run("calls_python", "Ada"),

    ...entityScenarios(client, { start, end, running, run, raise, shown, until, refusal, all }),
  };
}
