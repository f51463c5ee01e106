package scenarios;

import com.microsoft.durabletask.RetryPolicy;
import com.microsoft.durabletask.Task;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskCanceledException;
import com.microsoft.durabletask.TaskFailedException;
import com.microsoft.durabletask.TaskOptions;
import com.microsoft.durabletask.TaskOrchestration;
import com.microsoft.durabletask.TaskOrchestrationContext;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.IntStream;

/** What the worker runs. Names are those that every language of this suite uses. */
final class Workflows {
    private static final Map<String, Integer> ATTEMPTS = new ConcurrentHashMap<>();

    private Workflows() {}

    static Map<String, TaskActivity> activities() {
        Map<String, TaskActivity> all = new HashMap<>();
        all.put("add_one", ctx -> ctx.getInput(Integer.class) + 1);
        all.put("echo", ctx -> ctx.getInput(Object.class));
        all.put("fail", ctx -> {
            throw new OutOfStockException(ctx.getInput(String.class));
        });
        all.put("fail_with_nothing", ctx -> {
            throw new OutOfStockException("");
        });
        all.put("fail_twice", ctx -> failTwice(ctx.getInput(String.class)));
        return all;
    }

    static Map<String, TaskOrchestration> orchestrations() {
        Map<String, TaskOrchestration> all = new HashMap<>();
        all.put("empty", ctx -> ctx.complete("done"));
        all.put("chain", Workflows::chain);
        all.put("fan_out", ctx -> sumOf(ctx, number -> ctx.callActivity("echo", number, Integer.class)));
        all.put("family", ctx -> sumOf(ctx, number -> ctx.callSubOrchestrator("chain", 2, Integer.class)));
        all.put("sleeper", Workflows::sleeper);
        all.put("clock", ctx -> ctx.complete(ctx.getCurrentInstant().toEpochMilli()));
        all.put("listener", Workflows::listener);
        all.put("late_listener", Workflows::lateListener);
        all.put("impatient", Workflows::impatient);
        all.put("sender", Workflows::sender);
        all.put("collector", Workflows::collector);
        all.put("counter", Workflows::counter);
        all.put("failing_activity", ctx -> ctx.callActivity("fail", ctx.getInput(String.class)).await());
        all.put("failing_with_nothing", Workflows::failingWithNothing);
        all.put("failing", ctx -> {
            throw new OutOfStockException(ctx.getInput(String.class));
        });
        all.put("failing_child", ctx -> ctx.callSubOrchestrator("failing", ctx.getInput(String.class), Void.class).await());
        all.put("unknown_activity", ctx -> ctx.callActivity("nobody_has_this").await());
        all.put("retrying", ctx -> ctx.complete(
                ctx.callActivity("fail_twice", ctx.getInput(String.class), soon(5), Integer.class).await()));
        all.put("retrying_in_vain", ctx -> ctx.callActivity("fail", ctx.getInput(String.class), soon(2)).await());
        all.put("flaky", ctx -> ctx.complete(failTwice(ctx.getInput(String.class))));
        all.put("retrying_child", ctx -> ctx.complete(
                ctx.callSubOrchestrator("flaky", ctx.getInput(String.class), null, soon(5), Integer.class).await()));
        all.put("tolerant", Workflows::tolerant);
        all.put("reporting", Workflows::reporting);
        all.put("clearing", Workflows::clearing);
        all.put("uuids", Workflows::uuids);
        return all;
    }

    private static void chain(TaskOrchestrationContext ctx) {
        int number = 0;
        for (int step = ctx.getInput(Integer.class); step > 0; step--) {
            number = ctx.callActivity("add_one", number, Integer.class).await();
        }
        ctx.complete(number);
    }

    private interface Start {
        Task<Integer> task(int number);
    }

    private static void sumOf(TaskOrchestrationContext ctx, Start start) {
        List<Task<Integer>> tasks =
                IntStream.range(0, ctx.getInput(Integer.class)).mapToObj(start::task).toList();
        ctx.complete(ctx.allOf(tasks).await().stream().mapToInt(Integer::intValue).sum());
    }

    private static void sleeper(TaskOrchestrationContext ctx) {
        Duration delay = Duration.ofMillis(ctx.getInput(Integer.class));
        Instant fireAt = ctx.getCurrentInstant().plus(delay);
        ctx.createTimer(delay).await();
        ctx.complete(Duration.between(fireAt, ctx.getCurrentInstant()).toMillis());
    }

    private static void listener(TaskOrchestrationContext ctx) {
        List<Object> got = new ArrayList<>();
        while (got.size() < ctx.getInput(Integer.class)) {
            got.add(ctx.waitForExternalEvent("news", Object.class).await());
        }
        ctx.complete(got);
    }

    private static void lateListener(TaskOrchestrationContext ctx) {
        ctx.createTimer(Duration.ofMillis(200)).await();
        ctx.complete(ctx.waitForExternalEvent("news", Object.class).await());
    }

    private static void impatient(TaskOrchestrationContext ctx) {
        try {
            ctx.waitForExternalEvent("approval", Duration.ofMillis(ctx.getInput(Integer.class)), Object.class).await();
            ctx.complete("approved");
        } catch (TaskCanceledException error) {
            ctx.complete("timed out");
        }
    }

    private static void sender(TaskOrchestrationContext ctx) {
        ctx.sendEvent(ctx.getInput(String.class), "news", "from another orchestration");
        ctx.complete(null);
    }

    private static void collector(TaskOrchestrationContext ctx) {
        Integer[] before = ctx.getInput(Integer[].class);
        List<Integer> all = before == null ? new ArrayList<>() : new ArrayList<>(Arrays.asList(before));
        all.add(ctx.waitForExternalEvent("item", Integer.class).await());
        // The SDK carries over what arrived in the turn that continues as new, even if it was used: use it in an earlier one.
        ctx.callActivity("echo", all.size(), Integer.class).await();
        if (all.size() < 10) {
            ctx.continueAsNew(all);
        } else {
            ctx.complete(all);
        }
    }

    private static void counter(TaskOrchestrationContext ctx) {
        int number = ctx.getInput(Integer.class);
        if (number < 5) {
            ctx.continueAsNew(number + 1, false);
        } else {
            ctx.complete(number);
        }
    }

    private static void failingWithNothing(TaskOrchestrationContext ctx) {
        try {
            ctx.callActivity("fail_with_nothing").await();
            ctx.complete("succeeded");
        } catch (TaskFailedException error) {
            ctx.complete("failed");
        }
    }

    private static void tolerant(TaskOrchestrationContext ctx) {
        try {
            ctx.callSubOrchestrator("listener", 1, ctx.getInput(String.class), Object.class).await();
        } catch (TaskFailedException error) {
            ctx.complete(error.getErrorDetails().getErrorMessage());
        }
    }

    private static void reporting(TaskOrchestrationContext ctx) {
        ctx.setCustomStatus(Map.of("step", 1));
        ctx.waitForExternalEvent("news").await();
        ctx.setCustomStatus("");
        ctx.waitForExternalEvent("news").await();
        ctx.setCustomStatus("höchste Zeit 🎉");
    }

    private static void clearing(TaskOrchestrationContext ctx) {
        ctx.setCustomStatus("busy");
        ctx.waitForExternalEvent("news").await();
        ctx.clearCustomStatus();
    }

    private static void uuids(TaskOrchestrationContext ctx) {
        String before = ctx.newUUID().toString();
        ctx.callActivity("echo", before, Object.class).await();
        ctx.complete(List.of(before, ctx.newUUID().toString()));
    }

    private static int failTwice(String key) {
        int number = ATTEMPTS.merge(key, 1, Integer::sum);
        if (number < 3) {
            throw new OutOfStockException("attempt " + number);
        }
        return number;
    }

    private static TaskOptions soon(int attempts) {
        return new TaskOptions(new RetryPolicy(attempts, Duration.ofMillis(50)));
    }
}
