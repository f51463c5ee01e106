// A worker of everything in workflows.go, until SIGTERM.
package main

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	"durabletask-sql/scenarios"
)

func main() {
	client, closeConnection := scenarios.Connect()
	defer closeConnection()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := client.StartWorkItemListener(ctx, scenarios.Registry()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	<-ctx.Done()
}
