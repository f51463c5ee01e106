package scenarios;

import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;

/** How both programs reach the server: `PROGRAM ADDRESS HUB`. */
final class Connection {
    private Connection() {}

    static ManagedChannel to(String address, String hub) {
        Metadata metadata = new Metadata();
        metadata.put(Metadata.Key.of("taskhub", Metadata.ASCII_STRING_MARSHALLER), hub);
        return ManagedChannelBuilder.forTarget(address)
                .usePlaintext()
                .intercept(MetadataUtils.newAttachHeadersInterceptor(metadata))
                .build();
    }
}
