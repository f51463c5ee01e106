package scenarios;

import com.microsoft.durabletask.DurableTaskGrpcWorker;
import com.microsoft.durabletask.DurableTaskGrpcWorkerBuilder;
import com.microsoft.durabletask.TaskActivity;
import com.microsoft.durabletask.TaskActivityFactory;
import com.microsoft.durabletask.TaskOrchestration;
import com.microsoft.durabletask.TaskOrchestrationFactory;
import io.grpc.ManagedChannel;

/** A worker of everything in Workflows, until SIGTERM. */
public final class Worker {
    private Worker() {}

    /** Runs it: ADDRESS HUB. */
    public static void main(String[] arguments) {
        ManagedChannel channel = Connection.to(arguments[0], arguments[1]);
        DurableTaskGrpcWorkerBuilder builder = new DurableTaskGrpcWorkerBuilder().grpcChannel(channel);
        Workflows.orchestrations().forEach((name, run) -> builder.addOrchestration(new NamedOrchestration(name, run)));
        Workflows.activities().forEach((name, run) -> builder.addActivity(new NamedActivity(name, run)));
        DurableTaskGrpcWorker worker = builder.build();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            worker.close();
            channel.shutdownNow();
            Runtime.getRuntime().halt(0);
        }));
        System.out.println("ready");
        worker.startAndBlock();
    }

    private record NamedOrchestration(String name, TaskOrchestration run) implements TaskOrchestrationFactory {
        @Override
        public String getName() {
            return name;
        }

        @Override
        public TaskOrchestration create() {
            return run;
        }
    }

    private record NamedActivity(String name, TaskActivity run) implements TaskActivityFactory {
        @Override
        public String getName() {
            return name;
        }

        @Override
        public TaskActivity create() {
            return run;
        }
    }
}
