// Runs scenarios beside each other and prints a line of JSON for each: {"scenario": ..., "result" or "error": ...}.
// `client ADDRESS HUB [SCENARIO...]`; without names, all of them.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"durabletask-sql/scenarios"
)

func main() {
	client, closeConnection := scenarios.Connect()
	defer closeConnection()
	known := scenarios.All(client)
	wanted := os.Args[3:]
	if len(wanted) == 0 {
		for name := range known {
			wanted = append(wanted, name)
		}
	}
	lines := make(chan string)
	var running sync.WaitGroup
	for _, name := range wanted {
		running.Add(1)
		go func() {
			defer running.Done()
			lines <- run(name, known[name])
		}()
	}
	go func() {
		running.Wait()
		close(lines)
	}()
	for line := range lines {
		fmt.Println(line)
	}
}

func run(name string, scenario func() any) (line string) {
	defer func() {
		if problem := recover(); problem != nil {
			line = encode(map[string]any{"scenario": name, "error": fmt.Sprint(problem)})
		}
	}()
	return encode(map[string]any{"scenario": name, "result": scenario()})
}

func encode(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}
