// Package scenarios holds what the two programs run: workflows for the worker, scenarios for the client.
package scenarios

import (
	"context"
	"log"
	"os"

	"github.com/microsoft/durabletask-go/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Connect reaches the server: `PROGRAM ADDRESS HUB`.
func Connect() (*client.TaskHubGrpcClient, func()) {
	address, hub := os.Args[1], os.Args[2]
	named := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "taskhub", hub)
	}
	connection, err := grpc.Dial(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn,
			invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(named(ctx), method, request, reply, cc, options...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, description *grpc.StreamDesc, cc *grpc.ClientConn,
			method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(named(ctx), description, cc, method, options...)
		}))
	if err != nil {
		log.Fatal(err)
	}
	return client.NewTaskHubGrpcClient(connection, quiet{}), func() { connection.Close() }
}

// quiet logs what is wrong, to standard error.
type quiet struct{}

func (quiet) Debug(...any)                        {}
func (quiet) Debugf(string, ...any)               {}
func (quiet) Info(...any)                         {}
func (quiet) Infof(string, ...any)                {}
func (quiet) Warn(words ...any)                   { log.Print(words...) }
func (quiet) Warnf(format string, values ...any)  { log.Printf(format, values...) }
func (quiet) Error(words ...any)                  { log.Print(words...) }
func (quiet) Errorf(format string, values ...any) { log.Printf(format, values...) }
