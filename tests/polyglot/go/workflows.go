package scenarios

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/microsoft/durabletask-go/task"
)

var (
	attempts = map[string]int{}
	guard    sync.Mutex
)

// Registry returns what the worker runs. Names are those that every language of this suite uses.
func Registry() *task.TaskRegistry {
	registry := task.NewTaskRegistry()
	for name, run := range map[string]task.Activity{
		"add_one":           addOne,
		"echo":              echo,
		"fail":              fail,
		"fail_with_nothing": func(task.ActivityContext) (any, error) { return nil, errors.New("") },
		"fail_twice":        func(ctx task.ActivityContext) (any, error) { return failTwice(ctx.GetInput) },
	} {
		must(registry.AddActivityN(name, run))
	}
	for name, run := range map[string]task.Orchestrator{
		"empty":                func(*task.OrchestrationContext) (any, error) { return "done", nil },
		"chain":                chain,
		"fan_out":              fanOut,
		"family":               family,
		"sleeper":              sleeper,
		"clock":                func(ctx *task.OrchestrationContext) (any, error) { return ctx.CurrentTimeUtc.UnixMilli(), nil },
		"listener":             listener,
		"late_listener":        lateListener,
		"impatient":            impatient,
		"collector":            collector,
		"counter":              counter,
		"failing_activity":     failingActivity,
		"failing_with_nothing": failingWithNothing,
		"failing":              failing,
		"failing_child":        failingChild,
		"unknown_activity": func(ctx *task.OrchestrationContext) (any, error) {
			return nil, ctx.CallActivity("nobody_has_this").Await(nil)
		},
		"retrying":         retrying,
		"retrying_in_vain": retryingInVain,
		"flaky":            func(ctx *task.OrchestrationContext) (any, error) { return failTwice(ctx.GetInput) },
		"retrying_child":   retryingChild,
		"waiting_family":   waitingFamily,
		"tolerant":         tolerant,
		"reporting":        reporting,
		"unnamed_children": unnamedChildren,
		"who_am_i":         func(ctx *task.OrchestrationContext) (any, error) { return ctx.ID, nil },
	} {
		must(registry.AddOrchestratorN(name, run))
	}
	return registry
}

func addOne(ctx task.ActivityContext) (any, error) {
	var number int
	err := ctx.GetInput(&number)
	return number + 1, err
}

func echo(ctx task.ActivityContext) (any, error) {
	var value any
	err := ctx.GetInput(&value)
	return value, err
}

func fail(ctx task.ActivityContext) (any, error) {
	var text string
	must(ctx.GetInput(&text))
	return nil, errors.New(text)
}

func failTwice(input func(any) error) (any, error) {
	var key string
	must(input(&key))
	guard.Lock()
	defer guard.Unlock()
	attempts[key]++
	if attempts[key] < 3 {
		return nil, fmt.Errorf("attempt %d", attempts[key])
	}
	return attempts[key], nil
}

func chain(ctx *task.OrchestrationContext) (any, error) {
	number := 0
	for step := intInput(ctx); step > 0; step-- {
		if err := ctx.CallActivity("add_one", task.WithActivityInput(number)).Await(&number); err != nil {
			return nil, err
		}
	}
	return number, nil
}

func fanOut(ctx *task.OrchestrationContext) (any, error) {
	var tasks []task.Task
	for number := range intInput(ctx) {
		tasks = append(tasks, ctx.CallActivity("echo", task.WithActivityInput(number)))
	}
	return sum(tasks)
}

func family(ctx *task.OrchestrationContext) (any, error) {
	var tasks []task.Task
	for range intInput(ctx) {
		tasks = append(tasks, ctx.CallSubOrchestrator("chain", task.WithSubOrchestratorInput(2)))
	}
	return sum(tasks)
}

func sleeper(ctx *task.OrchestrationContext) (any, error) {
	delay := time.Duration(intInput(ctx)) * time.Millisecond
	fireAt := ctx.CurrentTimeUtc.Add(delay)
	err := ctx.CreateTimer(delay).Await(nil)
	return ctx.CurrentTimeUtc.Sub(fireAt).Milliseconds(), err
}

func listener(ctx *task.OrchestrationContext) (any, error) {
	got := []any{}
	for range intInput(ctx) {
		var value any
		if err := ctx.WaitForSingleEvent("News", -1).Await(&value); err != nil {
			return nil, err
		}
		got = append(got, value)
	}
	return got, nil
}

func lateListener(ctx *task.OrchestrationContext) (any, error) {
	if err := ctx.CreateTimer(200 * time.Millisecond).Await(nil); err != nil {
		return nil, err
	}
	var value any
	err := ctx.WaitForSingleEvent("news", -1).Await(&value)
	return value, err
}

func impatient(ctx *task.OrchestrationContext) (any, error) {
	err := ctx.WaitForSingleEvent("approval", time.Duration(intInput(ctx))*time.Millisecond).Await(nil)
	if errors.Is(err, task.ErrTaskCanceled) {
		return "timed out", nil
	}
	return "approved", err
}

func collector(ctx *task.OrchestrationContext) (any, error) {
	var all []int
	if err := ctx.GetInput(&all); err != nil {
		return nil, err
	}
	var item int
	if err := ctx.WaitForSingleEvent("item", -1).Await(&item); err != nil {
		return nil, err
	}
	if all = append(all, item); len(all) < 10 {
		ctx.ContinueAsNew(all, task.WithKeepUnprocessedEvents())
	}
	return all, nil
}

func counter(ctx *task.OrchestrationContext) (any, error) {
	number := intInput(ctx)
	if number < 5 {
		ctx.ContinueAsNew(number + 1)
	}
	return number, nil
}

func failingActivity(ctx *task.OrchestrationContext) (any, error) {
	return nil, ctx.CallActivity("fail", task.WithActivityInput(textInput(ctx))).Await(nil)
}

func failingWithNothing(ctx *task.OrchestrationContext) (any, error) {
	if err := ctx.CallActivity("fail_with_nothing").Await(nil); err != nil {
		return "failed", nil
	}
	return "succeeded", nil
}

func failing(ctx *task.OrchestrationContext) (any, error) {
	return nil, errors.New(textInput(ctx))
}

func failingChild(ctx *task.OrchestrationContext) (any, error) {
	return nil, ctx.CallSubOrchestrator("failing", task.WithSubOrchestratorInput(textInput(ctx))).Await(nil)
}

func soon(count int) *task.RetryPolicy {
	return &task.RetryPolicy{MaxAttempts: count, InitialRetryInterval: 50 * time.Millisecond}
}

func retrying(ctx *task.OrchestrationContext) (any, error) {
	var number int
	err := ctx.CallActivity("fail_twice", task.WithActivityInput(textInput(ctx)), task.WithActivityRetryPolicy(soon(5))).Await(&number)
	return number, err
}

func retryingInVain(ctx *task.OrchestrationContext) (any, error) {
	return nil, ctx.CallActivity("fail", task.WithActivityInput(textInput(ctx)), task.WithActivityRetryPolicy(soon(2))).Await(nil)
}

func retryingChild(ctx *task.OrchestrationContext) (any, error) {
	var number int
	err := ctx.CallSubOrchestrator("flaky", task.WithSubOrchestratorInput(textInput(ctx)),
		task.WithSubOrchestrationRetryPolicy(soon(5))).Await(&number)
	return number, err
}

func waitingFamily(ctx *task.OrchestrationContext) (any, error) {
	var ids []string
	if err := ctx.GetInput(&ids); err != nil {
		return nil, err
	}
	var tasks []task.Task
	for _, id := range ids {
		tasks = append(tasks, ctx.CallSubOrchestrator("listener", task.WithSubOrchestratorInput(1), task.WithSubOrchestrationInstanceID(id)))
	}
	for _, one := range tasks {
		if err := one.Await(nil); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func tolerant(ctx *task.OrchestrationContext) (any, error) {
	err := ctx.CallSubOrchestrator("listener", task.WithSubOrchestratorInput(1), task.WithSubOrchestrationInstanceID(textInput(ctx))).Await(nil)
	if err == nil {
		return "completed", nil
	}
	return err.Error(), nil
}

func reporting(ctx *task.OrchestrationContext) (any, error) {
	for _, status := range []string{`{"step":1}`, `""`} {
		ctx.SetCustomStatus(status)
		if err := ctx.WaitForSingleEvent("news", -1).Await(nil); err != nil {
			return nil, err
		}
	}
	ctx.SetCustomStatus(`"höchste Zeit 🎉"`)
	return nil, nil
}

func unnamedChildren(ctx *task.OrchestrationContext) (any, error) {
	var tasks []task.Task
	for range 2 {
		tasks = append(tasks, ctx.CallSubOrchestrator("who_am_i"))
	}
	ids := make([]string, len(tasks))
	for index, one := range tasks {
		if err := one.Await(&ids[index]); err != nil {
			return nil, err
		}
		ids[index] = strings.TrimPrefix(ids[index], string(ctx.ID))
	}
	return ids, nil
}

func sum(tasks []task.Task) (any, error) {
	total := 0
	for _, one := range tasks {
		var number int
		if err := one.Await(&number); err != nil {
			return nil, err
		}
		total += number
	}
	return total, nil
}

func intInput(ctx *task.OrchestrationContext) int {
	var number int
	must(ctx.GetInput(&number))
	return number
}

func textInput(ctx *task.OrchestrationContext) string {
	var text string
	must(ctx.GetInput(&text))
	return text
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
