package scenarios;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.microsoft.durabletask.DurableTaskClient;
import com.microsoft.durabletask.DurableTaskGrpcClientBuilder;
import io.grpc.ManagedChannel;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Predicate;

/** Runs scenarios beside each other and prints a line of JSON for each: {"scenario": ..., "result" or "error": ...}. */
public final class Client {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private Client() {}

    /** Runs them: ADDRESS HUB [SCENARIO...]; without names, all of them. */
    public static void main(String[] arguments) throws InterruptedException {
        ManagedChannel channel = Connection.to(arguments[0], arguments[1]);
        DurableTaskClient client = new DurableTaskGrpcClientBuilder().grpcChannel(channel).build();
        Scenarios scenarios = new Scenarios(client);
        List<String> wanted = List.of(arguments).subList(2, arguments.length);
        Predicate<Map.Entry<String, ?>> isWanted = one -> wanted.isEmpty() || wanted.contains(one.getKey());
        ExecutorService threads = Executors.newCachedThreadPool();
        threads.invokeAll(scenarios.all().entrySet().stream().filter(isWanted)
                .map(one -> Executors.callable(() -> print(one.getKey(), one.getValue())))
                .toList());
        threads.shutdown();
        scenarios.alone().entrySet().stream().filter(isWanted).forEach(one -> print(one.getKey(), one.getValue()));
        channel.shutdownNow();
    }

    private static void print(String scenario, Callable<Object> run) {
        Map<String, Object> line = new HashMap<>();
        line.put("scenario", scenario);
        try {
            line.put("result", run.call());
        } catch (Exception | Error error) {
            StringWriter trace = new StringWriter();
            error.printStackTrace(new PrintWriter(trace));
            line.put("error", trace.toString());
        }
        OUT.println(JSON.valueToTree(line));
    }
}
