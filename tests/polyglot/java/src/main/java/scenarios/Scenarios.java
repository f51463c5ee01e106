package scenarios;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.FailureDetails;
import com.microsoft.durabletask.NewOrchestrationInstanceOptions;
import com.microsoft.durabletask.OrchestrationMetadata;
import com.microsoft.durabletask.OrchestrationRuntimeStatus;
import com.microsoft.durabletask.OrchestrationStatusQuery;
import com.microsoft.durabletask.OrchestrationStatusQueryResult;
import com.microsoft.durabletask.PurgeInstanceCriteria;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeoutException;
import java.util.stream.IntStream;

/** What clients do: each scenario returns what it saw. They run beside each other, so their ids differ. */
final class Scenarios {
    private static final Duration LONG = Duration.ofSeconds(30);
    private static final String MEGABYTE = "x".repeat(1_000_000);
    private static final List<String> TEXTS =
            List.of("größer 🎉 漢字", "line\nbreak\ttab", "\u0000\u0001\u001f", "quote\"'\\", "");
    private static final ObjectMapper JSON = new ObjectMapper();

    private final DurableTaskClient client;

    Scenarios(DurableTaskClient client) {
        this.client = client;
    }

    Map<String, Callable<Object>> all() {
        Map<String, Callable<Object>> all = new LinkedHashMap<>();
        all.put("empty", () -> run("empty", null));
        all.put("chain", () -> run("chain", 10));
        all.put("fan_out", () -> run("fan_out", 200));
        all.put("family", () -> run("family", 5));
        all.put("timers", () -> Map.of("future", run("sleeper", 400), "past", run("sleeper", -10_000)));
        all.put("first_clock", this::firstClock);
        all.put("events", this::events);
        all.put("event_before_wait", this::eventBeforeWait);
        all.put("event_timeouts", this::eventTimeouts);
        all.put("event_between_orchestrations", this::eventBetweenOrchestrations);
        all.put("continue_as_new", this::continueAsNew);
        all.put("failures", this::failures);
        all.put("retries", () -> Map.of("activity", run("retrying", "activity"), "child", run("retrying_child", "child"),
                "in_vain", run("retrying_in_vain", "never")));
        all.put("terminate", this::terminate);
        all.put("terminated_child", this::terminatedChild);
        all.put("terminate_scheduled", this::terminateScheduled);
        all.put("suspend", this::suspend);
        all.put("terminate_suspended", this::terminateSuspended);
        all.put("custom_status", this::customStatus);
        all.put("cleared_status", this::clearedStatus);
        all.put("scheduled_start", this::scheduledStart);
        all.put("ids_in_use", this::idsInUse);
        all.put("bad_input", () -> Map.of("id", refusal(() -> start("empty", null, "@entity@key"))));
        all.put("unknown_instance", this::unknownInstance);
        all.put("unicode", this::unicode);
        all.put("megabyte", this::megabyte);
        all.put("many_at_once", this::manyAtOnce);
        all.put("uuids", () -> run("uuids", null));
        all.put("query", this::query);
        all.put("purge", this::purge);
        all.put("restart", this::restart);
        return all;
    }

    /** Those that others would suffer from: they run when the others have ended. */
    Map<String, Callable<Object>> alone() {
        Map<String, Callable<Object>> alone = new LinkedHashMap<>();
        alone.put("purge_by_criteria", this::purgeByCriteria);
        alone.put("hubs", this::hubs);
        return alone;
    }

    private Object firstClock() throws Exception {
        long before = Instant.now().toEpochMilli();
        return ((Number) run("clock", null).get("output")).longValue() - before;
    }

    private Object events() throws Exception {
        String id = start("listener", 10);
        for (int number = 0; number < 10; number++) {
            client.raiseEvent(id, "news", number);
        }
        return shown(end(id));
    }

    private Object eventBeforeWait() throws Exception {
        String id = start("late_listener", null);
        client.raiseEvent(id, "news", "early");
        return shown(end(id));
    }

    private Object eventTimeouts() throws Exception {
        String id = start("impatient", 30_000);
        client.raiseEvent(id, "approval");
        return Map.of("event", shown(end(id)), "timeout", run("impatient", 200));
    }

    private Object eventBetweenOrchestrations() throws Exception {
        String id = start("listener", 1);
        run("sender", id);
        return shown(end(id));
    }

    private Object continueAsNew() throws Exception {
        String id = start("collector", null);
        for (int number = 0; number < 10; number++) {
            client.raiseEvent(id, "item", number);
        }
        return Map.of("events", shown(end(id)), "counter", run("counter", 0));
    }

    private Object failures() throws Exception {
        return Map.of(
                "activity", run("failing_activity", "no nails"),
                "nothing", run("failing_with_nothing", null),
                "orchestration", run("failing", "no screws"),
                "child", run("failing_child", "no bolts"),
                "unknown_activity", run("unknown_activity", null),
                "unknown_orchestration", run("nobody_has_this", null));
    }

    private Object terminate() throws Exception {
        String id = running(start("listener", 1));
        client.terminate(id, Map.of("reason", "enough"));
        Object ended = shown(end(id));
        client.terminate(id, "again");
        client.terminate("terminate-of-nobody", null);
        return Map.of("ended", ended, "again", shown(end(id)));
    }

    private Object terminatedChild() throws Exception {
        String id = start("tolerant", "terminated-child");
        client.terminate(running("terminated-child"), "no more");
        return shown(end(id));
    }

    private Object terminateScheduled() throws Exception {
        String id = client.scheduleNewOrchestrationInstance("empty",
                new NewOrchestrationInstanceOptions().setStartTime(Instant.now().plusSeconds(3600)));
        client.terminate(id, "never");
        return shown(end(id));
    }

    private Object suspend() throws Exception {
        String id = start("listener", 3);
        client.raiseEvent(id, "news", 0);
        client.suspendInstance(id, "lunch");
        until(() -> "SUSPENDED".equals(status(id)));
        client.raiseEvent(id, "news", 1);
        client.raiseEvent(id, "news", 2);
        String before = status(id);
        client.resumeInstance(id, "back");
        return Map.of("before", before, "after", shown(end(id)));
    }

    private Object terminateSuspended() throws Exception {
        String id = start("listener", 1);
        client.suspendInstance(id);
        until(() -> "SUSPENDED".equals(status(id)));
        client.terminate(id, "asleep");
        return shown(end(id));
    }

    private Object customStatus() throws Exception {
        String id = start("reporting", null);
        List<Object> found = new ArrayList<>();
        for (Object wanted : List.of(Map.of("step", 1), "")) {
            until(() -> wanted.equals(client.getInstanceMetadata(id, true).readCustomStatusAs(Object.class)));
            found.add(wanted);
            client.raiseEvent(id, "news");
        }
        found.add(end(id).readCustomStatusAs(Object.class));
        return found;
    }

    private Object clearedStatus() throws Exception {
        String id = start("clearing", null);
        until(() -> "busy".equals(client.getInstanceMetadata(id, true).readCustomStatusAs(Object.class)));
        client.raiseEvent(id, "news");
        return end(id).readCustomStatusAs(Object.class);
    }

    private Object scheduledStart() throws Exception {
        Instant startAt = Instant.now().plusMillis(1500);
        String id = client.scheduleNewOrchestrationInstance(
                "clock", new NewOrchestrationInstanceOptions().setStartTime(startAt).setVersion("1.2.3"));
        String before = status(id);
        return Map.of("before", before, "late", end(id).readOutputAs(Long.class) - startAt.toEpochMilli());
    }

    private Object idsInUse() throws Exception {
        String id = running(start("listener", 1, "in-use"));
        String refused = refusal(() -> start("listener", 1, id));
        client.terminate(id, null);
        end(id);
        return Map.of("refused", refused, "replaced", shown(end(start("empty", null, id))));
    }

    private Object unknownInstance() throws Exception {
        Map<String, Object> found = new HashMap<>();
        found.put("state", shown(client.getInstanceMetadata("nobody", true)));
        found.put("wait", refusal(() -> client.waitForInstanceCompletion("nobody", Duration.ofMillis(300), true)));
        found.put("purged", client.purgeInstance("nobody").getDeletedInstanceCount());
        return found;
    }

    private Object unicode() throws Exception {
        String id = start("listener", TEXTS.size(), "größer 🎉 漢字/\\#?%_'");
        for (String text : TEXTS) {
            client.raiseEvent(id, "news", text);
        }
        OrchestrationMetadata state = end(id);
        return Map.of("same", state.getInstanceId().equals(id), "got", state.readOutputAs(Object.class), "sent", TEXTS);
    }

    private Object megabyte() throws Exception {
        String id = start("late_listener", MEGABYTE);
        client.raiseEvent(id, "news", MEGABYTE);
        OrchestrationMetadata state = end(id);
        return List.of(MEGABYTE.equals(state.readInputAs(String.class)), MEGABYTE.equals(state.readOutputAs(String.class)));
    }

    private Object manyAtOnce() throws Exception {
        List<String> ids = IntStream.range(0, 30).mapToObj(number -> start("chain", 3)).toList();
        List<Object> outputs = new ArrayList<>();
        for (String id : ids) {
            outputs.add(end(id).readOutputAs(Object.class));
        }
        return outputs;
    }

    private Object query() throws Exception {
        for (int number = 0; number < 7; number++) {
            end(start("empty", number, "query-%_" + number));
        }
        running(start("listener", 1, "query-%_live"));
        end(start("empty", null, "query-xx1"));
        OrchestrationStatusQuery query = new OrchestrationStatusQuery().setInstanceIdPrefix("query-%_");
        query.setMaxInstanceCount(3).setFetchInputsAndOutputs(true);
        List<Integer> sizes = new ArrayList<>();
        List<String> ids = new ArrayList<>();
        OrchestrationStatusQueryResult page = null;
        do {
            page = client.queryInstances(query.setContinuationToken(page == null ? null : page.getContinuationToken()));
            sizes.add(page.getOrchestrationState().size());
            page.getOrchestrationState().forEach(state -> ids.add(state.getInstanceId()));
        } while (page.getContinuationToken() != null && !page.getContinuationToken().isEmpty());
        List<OrchestrationMetadata> completed = client.queryInstances(new OrchestrationStatusQuery()
                .setInstanceIdPrefix("query-%_")
                .setRuntimeStatusList(List.of(OrchestrationRuntimeStatus.COMPLETED))).getOrchestrationState();
        client.terminate("query-%_live", null);
        return Map.of("sizes", sizes, "ids", ids.stream().sorted().toList(), "completed", completed.size());
    }

    private Object purge() throws Exception {
        String live = running(start("listener", 1));
        String done = start("empty", null);
        end(done);
        List<Integer> counts = new ArrayList<>();
        for (String id : List.of(live, done, done)) {
            counts.add(client.purgeInstance(id).getDeletedInstanceCount());
        }
        client.terminate(live, null);
        Map<String, Object> found = new HashMap<>();
        found.put("counts", counts);
        found.put("gone", status(done));
        return found;
    }

    private Object purgeByCriteria() throws Exception {
        Instant from = Instant.now();
        String failed = start("failing", "to be purged");
        String done = start("empty", null);
        end(failed);
        end(done);
        PurgeInstanceCriteria criteria = new PurgeInstanceCriteria()
                .setCreatedTimeFrom(from)
                .setRuntimeStatusList(List.of(OrchestrationRuntimeStatus.FAILED));
        Map<String, Object> found = new HashMap<>();
        found.put("count", client.purgeInstances(criteria).getDeletedInstanceCount());
        found.put("failed", status(failed));
        found.put("done", status(done));
        found.put("late", refusal(() -> client.purgeInstances(criteria.setTimeout(Duration.ofNanos(1)))));
        return found;
    }

    private Object hubs() {
        return List.of(refusal(() -> {
            client.createTaskHub(true);
            return "created";
        }), refusal(() -> {
            client.deleteTaskHub();
            return "deleted";
        }));
    }

    /** The SDK does this by itself: it reads the instance and starts another, under its id or a new one. */
    private Object restart() throws Exception {
        String id = start("chain", 4);
        end(id);
        String same = client.restartInstance(id, false);
        Object again = shown(end(same));
        String other = client.restartInstance(id, true);
        return Map.of("same", same.equals(id), "again", again, "other", !other.equals(id), "fresh", shown(end(other)));
    }

    private String start(String name, Object input) {
        return client.scheduleNewOrchestrationInstance(name, input);
    }

    private String start(String name, Object input, String id) {
        return client.scheduleNewOrchestrationInstance(name, input, id);
    }

    private OrchestrationMetadata end(String id) throws TimeoutException {
        return client.waitForInstanceCompletion(id, LONG, true);
    }

    private String running(String id) throws TimeoutException {
        client.waitForInstanceStart(id, LONG);
        return id;
    }

    private Map<String, Object> run(String name, Object input) throws Exception {
        return shown(end(start(name, input)));
    }

    private String status(String id) {
        OrchestrationMetadata state = client.getInstanceMetadata(id, false);
        return state.isInstanceFound() ? state.getRuntimeStatus().name() : null;
    }

    /** Return what the tests look at in a state. */
    private static Map<String, Object> shown(OrchestrationMetadata state) throws JsonProcessingException {
        if (!state.isInstanceFound()) {
            return null;
        }
        String output = state.getSerializedOutput();
        // The SDK gives empty details for an instance that has none.
        FailureDetails details =
                state.getRuntimeStatus() == OrchestrationRuntimeStatus.FAILED ? state.getFailureDetails() : null;
        Map<String, Object> found = new HashMap<>();
        found.put("status", state.getRuntimeStatus().name());
        found.put("output", output == null || output.isEmpty() ? null : JSON.readValue(output, Object.class));
        found.put("failure", details == null ? null : Map.of("type", details.getErrorType(),
                "message", details.getErrorMessage(), "traced", !details.getStackTrace().isEmpty()));
        return found;
    }

    /** Wait for something that a client can only ask for. */
    private static void until(Callable<Boolean> holds) throws Exception {
        for (int left = 1_000; left > 0; left--) {
            if (holds.call()) {
                return;
            }
            Thread.sleep(20);
        }
        throw new AssertionError("it did not happen");
    }

    /** Return the text of the error that a call ends with. */
    private static String refusal(Callable<?> call) {
        try {
            return "nothing: " + call.call();
        } catch (Exception error) {
            return error.toString();
        }
    }
}
