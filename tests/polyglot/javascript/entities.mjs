// The entities that the worker has, and the orchestrations that use them.

import { EntityInstanceId, TaskEntity } from "@microsoft/durabletask-js";

const counter = (key) => new EntityInstanceId("Counter", key);

class Counter extends TaskEntity {
  initializeState() {
    return 0;
  }

  add(amount) {
    this.state += amount;
    return this.state;
  }

  get() {
    return this.state;
  }

  fail(text) {
    this.state += 1_000;
    throw new Error(text);
  }

  tell(key) {
    this.context.signalEntity(counter(key), "add", this.state);
  }

  launch(instanceId) {
    this.context.scheduleNewOrchestration("empty", null, { instanceId });
  }
}

export const entities = { counter: () => new Counter() };

export const users = {
  async *counting(ctx, key) {
    const results = [];
    for (const amount of [5, 3]) {
      results.push(yield ctx.entities.callEntity(counter(key), "add", amount));
    }
    ctx.entities.signalEntity(counter(key), "add", 2);
    results.push(yield ctx.entities.callEntity(counter(key), "get"));
    return results;
  },

  async *failing_entity(ctx, key) {
    yield ctx.entities.callEntity(counter(key), "add", 1);
    let failure;
    try {
      yield ctx.entities.callEntity(counter(key), "fail", "no more numbers");
    } catch (error) {
      failure = error.message;
    }
    return [failure, yield ctx.entities.callEntity(counter(key), "get")];
  },

  async *unknown_entity(ctx) {
    try {
      yield ctx.entities.callEntity(new EntityInstanceId("nobody", "x"), "get");
    } catch (error) {
      return error.message;
    }
    return null;
  },

  // Reads both, then writes both: without the lock, transfers beside each other would lose one another's writes.
  async *transfer(ctx, [from, to, amount]) {
    const lock = yield ctx.entities.lockEntities(counter(from), counter(to));
    const inside = ctx.entities.isInCriticalSection().inSection;
    const have = yield ctx.entities.callEntity(counter(from), "get");
    yield ctx.entities.callEntity(counter(from), "add", -amount);
    yield ctx.entities.callEntity(counter(to), "add", amount);
    const left = yield ctx.entities.callEntity(counter(from), "get");
    lock.release();
    return inside && have - left === amount;
  },

  async *holding(ctx, key) {
    const lock = yield ctx.entities.lockEntities(counter(key));
    yield ctx.waitForExternalEvent("news");
    lock.release();
  },
};
