// What clients do with entities, and see of those that orchestrations use.

import { EntityInstanceId } from "@microsoft/durabletask-js";

const counter = (key) => new EntityInstanceId("counter", key);

export function entityScenarios(client, { start, end, running, run, raise, shown, until, refusal, all }) {
  const state = async (key) => (await client.getEntity(counter(key)))?.state ?? null;
  const reaches = (key, value) => until(() => state(key), (found) => found === value);

  /** Start an orchestration that holds an entity which has the state 1; return its id and whom the entity names as holder. */
  async function hold(key, instanceId) {
    await client.signalEntity(counter(key), "add", 1);
    await reaches(key, 1);
    const id = await start("holding", key, { instanceId });
    const held = await until(() => client.getEntity(counter(key)), (found) => found?.lockedBy !== undefined);
    return { id, by: held.lockedBy };
  }

  return {
    async entity_signals() {
      for (let number = 1; number <= 5; number++) {
        await client.signalEntity(counter("signalled"), "add", number);
      }
      const before = Date.now();
      await reaches("signalled", 15);
      const { id, backlogQueueSize, lockedBy, lastModifiedTime } = await client.getEntity(counter("signalled"), false);
      return { id: id.toString(), backlogQueueSize, lockedBy: lockedBy ?? null, age: before - lastModifiedTime.getTime() };
    },

    async entity_calls() {
      return { counting: await run("counting", "called"), failing: await run("failing_entity", "failing"), unknown: await run("unknown_entity") };
    },

    async entity_locks() {
      await client.signalEntity(counter("left"), "add", 100);
      await reaches("left", 100);
      const pairs = Array.from({ length: 10 }, (_, number) => (number % 2 ? ["left", "right", 7] : ["right", "left", 3]));
      const transfers = await Promise.all(pairs.map((pair) => run("transfer", pair)));
      return { transfers: transfers.map((one) => one.output), left: await state("left"), right: await state("right") };
    },

    async entity_locked_by() {
      const { id, by } = await hold("held", "the-holder");
      await client.signalEntity(counter("held"), "add", 1);
      const during = await state("held");
      await raise(id, "news");
      await end(id);
      await reaches("held", 2);
      return { by, during, after: (await client.getEntity(counter("held"))).lockedBy ?? null };
    },

    async entity_lock_of_the_dead() {
      const { id } = await hold("orphaned", "the-dead");
      await client.terminateOrchestration(id);
      await end(id);
      await client.signalEntity(counter("orphaned"), "add", 1);
      return reaches("orphaned", 2);
    },

    async entity_deletion() {
      await client.signalEntity(counter("deleted"), "add", 1);
      await reaches("deleted", 1);
      await client.signalEntity(counter("deleted"), "delete");
      await reaches("deleted", null);
      const gone = (await client.getEntity(counter("deleted"))) ?? null;
      await client.signalEntity(counter("deleted"), "add", 7);
      return { gone, again: await reaches("deleted", 7) };
    },

    async entity_delayed_signal() {
      await client.signalEntity(counter("delayed-for-long"), "add", 4, { signalTime: new Date(Date.now() + 3_600_000) });
      const signalTime = new Date(Date.now() + 1_000);
      await client.signalEntity(counter("delayed"), "add", 4, { signalTime });
      await reaches("delayed", 4);
      const late = Date.now() - signalTime.getTime();
      return { before: (await client.getEntity(counter("delayed-for-long"))) ?? null, late };
    },

    async entity_effects() {
      await client.signalEntity(counter("teller"), "add", 9);
      await client.signalEntity(counter("teller"), "tell", "told");
      await client.signalEntity(counter("teller"), "launch", "launched-by-an-entity");
      await reaches("told", 9);
      await running("launched-by-an-entity");
      return shown(await end("launched-by-an-entity"));
    },

    async entity_queries() {
      const keys = Array.from({ length: 5 }, (_, number) => `listed-${number}`);
      for (const key of keys) {
        await client.signalEntity(counter(key), "add", 1);
        await reaches(key, 1);
      }
      const paged = await all(client.getEntities({ instanceIdStartsWith: "@Counter@listed-", pageSize: 2 }));
      const bare = await all(client.getEntities({ instanceIdStartsWith: "@counter@listed-", includeState: false }));
      return {
        sizes: paged.sizes,
        ids: paged.states.map((one) => one.id.toString()),
        states: paged.states.map((one) => one.state),
        bare: bare.states.map((one) => one.includesState),
      };
    },

    async entity_id_too_long() {
      return refusal(client.signalEntity(counter("k".repeat(120)), "add", 1));
    },

    async entity_clean_up() {
      const { emptyEntitiesRemoved, orphanedLocksReleased } = await client.cleanEntityStorage();
      return [emptyEntitiesRemoved, orphanedLocksReleased];
    },
  };
}
