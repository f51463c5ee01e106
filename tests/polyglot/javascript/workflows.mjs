// What the worker runs. Names are those that every language of this suite uses.

import { RetryPolicy, whenAll, whenAny } from "@microsoft/durabletask-js";

class OutOfStockError extends Error {
  name = "OutOfStockError";
}

const attempts = new Map();

function attempt(key) {
  attempts.set(key, (attempts.get(key) ?? 0) + 1);
  return attempts.get(key);
}

function failTwice(key) {
  const number = attempt(key);
  if (number < 3) {
    throw new OutOfStockError(`attempt ${number}`);
  }
  return number;
}

const soon = (attemptCount) => ({
  retry: new RetryPolicy({ maxNumberOfAttempts: attemptCount, firstRetryIntervalInMilliseconds: 50 }),
});

const later = (ctx, milliseconds) => new Date(ctx.currentUtcDateTime.getTime() + milliseconds);

export const activities = {
  add_one: (_, number) => number + 1,
  echo: (_, value) => value,
  fail: (_, text) => {
    throw new OutOfStockError(text);
  },
  fail_with_nothing: () => {
    throw new Error("");
  },
  fail_twice: (_, key) => failTwice(key),
  fail_once: (_, key) => {
    if (attempt(key) === 1) {
      throw new OutOfStockError("the first attempt");
    }
    return "recovered";
  },
  who: (_, name) => `${name} of JavaScript`,
};

export const orchestrators = {
  empty: () => "done",

  async *chain(ctx, count) {
    let number = 0;
    for (let step = 0; step < count; step++) {
      number = yield ctx.callActivity("add_one", number);
    }
    return number;
  },

  async *fan_out(ctx, count) {
    const tasks = Array.from({ length: count }, (_, number) => ctx.callActivity("echo", number));
    return (yield whenAll(tasks)).reduce((sum, number) => sum + number, 0);
  },

  async *family(ctx, count) {
    const children = Array.from({ length: count }, () => ctx.callSubOrchestrator("chain", 2));
    return (yield whenAll(children)).reduce((sum, number) => sum + number, 0);
  },

  lineage: (ctx) => ({ id: ctx.instanceId, parent: ctx.parent ?? null }),

  async *lineage_parent(ctx) {
    return yield ctx.callSubOrchestrator("lineage");
  },

  async *sleeper(ctx, milliseconds) {
    const fireAt = later(ctx, milliseconds);
    yield ctx.createTimer(fireAt);
    return ctx.currentUtcDateTime.getTime() - fireAt.getTime();
  },

  clock: (ctx) => ctx.currentUtcDateTime.getTime(),

  async *listener(ctx, count) {
    const got = [];
    while (got.length < count) {
      got.push(yield ctx.waitForExternalEvent("News"));
    }
    return got;
  },

  async *late_listener(ctx) {
    yield ctx.createTimer(later(ctx, 200));
    return yield ctx.waitForExternalEvent("news");
  },

  async *impatient(ctx, milliseconds) {
    const event = ctx.waitForExternalEvent("approval");
    const timeout = ctx.createTimer(later(ctx, milliseconds));
    const winner = yield whenAny([event, timeout]);
    if (winner === event) {
      timeout.cancel();
      return "approved";
    }
    return "timed out";
  },

  async *patient(ctx) {
    const event = ctx.waitForExternalEvent("news");
    const winner = yield whenAny([event, ctx.createTimer(new Date(8.64e15))]);
    return winner === event;
  },

  async *sender(ctx, target) {
    ctx.sendEvent(target, "news", "from another orchestration");
  },

  async *collector(ctx, got) {
    const all = [...(got ?? []), yield ctx.waitForExternalEvent("item")];
    if (all.length < 10) {
      ctx.continueAsNew(all, true);
      return undefined;
    }
    return all;
  },

  counter(ctx, number) {
    if (number < 5) {
      ctx.continueAsNew(number + 1, false);
      return undefined;
    }
    return number;
  },

  async *failing_activity(ctx, text) {
    yield ctx.callActivity("fail", text);
  },

  async *failing_with_nothing(ctx) {
    try {
      yield ctx.callActivity("fail_with_nothing");
      return "succeeded";
    } catch (error) {
      return error.name === "TaskFailedError" ? "failed" : error.name;
    }
  },

  failing(_, text) {
    throw new OutOfStockError(text);
  },

  async *failing_child(ctx, text) {
    yield ctx.callSubOrchestrator("failing", text);
  },

  async *retrying(ctx, key) {
    return yield ctx.callActivity("fail_twice", key, soon(5));
  },

  async *retrying_in_vain(ctx, text) {
    yield ctx.callActivity("fail", text, soon(2));
  },

  flaky: (ctx, key) => failTwice(key),

  async *retrying_child(ctx, key) {
    return yield ctx.callSubOrchestrator("flaky", key, soon(5));
  },

  async *waiting_family(ctx, childIds) {
    yield whenAll(childIds.map((instanceId) => ctx.callSubOrchestrator("listener", 1, { instanceId })));
  },

  async *tolerant(ctx, childId) {
    try {
      return yield ctx.callSubOrchestrator("listener", 1, { instanceId: childId });
    } catch (error) {
      return error.details.message;
    }
  },

  async *reporting(ctx) {
    ctx.setCustomStatus({ step: 1 });
    yield ctx.waitForExternalEvent("news");
    ctx.setCustomStatus("");
    yield ctx.waitForExternalEvent("news");
    ctx.setCustomStatus("höchste Zeit 🎉");
  },

  versioned: (ctx) => ctx.version,

  async *versioned_parent(ctx) {
    const versions = [ctx.version];
    versions.push(yield ctx.callSubOrchestrator("versioned", null, { version: "2.0" }));
    versions.push(yield ctx.callSubOrchestrator("versioned"));
    return versions;
  },

  async *tagged(ctx) {
    yield ctx.callActivity("echo", 1, { tags: { kind: "activity" } });
    yield ctx.callSubOrchestrator("empty", null, { instanceId: `${ctx.instanceId}-child`, tags: { kind: "child" } });
  },

  async *three_steps(ctx) {
    yield ctx.callActivity("echo", 1);
    yield ctx.createTimer(later(ctx, 20));
    yield ctx.callSubOrchestrator("empty");
  },

  async *guids(ctx) {
    const before = ctx.newGuid();
    yield ctx.callActivity("echo", before);
    return [before, ctx.newGuid()];
  },

  async *unknown_activity(ctx) {
    yield ctx.callActivity("nobody_has_this");
  },

  // Fails on its first run; after a rewind its activity succeeds.
  async *rewindable(ctx, key) {
    const before = yield ctx.callActivity("add_one", 1);
    return [before, yield ctx.callActivity("fail_once", key)];
  },

  async *rewindable_parent(ctx, key) {
    return yield ctx.callSubOrchestrator("rewindable", key);
  },

  async *calls_python(ctx, name) {
    const greeting = yield ctx.callActivity("do_who_python", name);
    return [greeting, yield ctx.callSubOrchestrator("chain_python", 3)];
  },
};
