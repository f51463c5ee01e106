package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/client"
)

const long = 30 * time.Second

var (
	megabyte = strings.Repeat("x", 1_000_000)
	texts    = []string{"größer 🎉 漢字", "line\nbreak\ttab", "\u0000\u0001\u001f", "quote\"'\\", ""}
)

type object = map[string]any

// hub is a client with the short forms that the scenarios use. What should not fail panics; main reports it.
type hub struct {
	client *client.TaskHubGrpcClient
}

// All returns what clients do: each scenario returns what it saw. They run beside each other, so their ids differ.
func All(client *client.TaskHubGrpcClient) map[string]func() any {
	h := hub{client}
	return map[string]func() any{
		"empty":                 func() any { return h.run("empty", nil) },
		"chain":                 func() any { return h.run("chain", 10) },
		"fan_out":               func() any { return h.run("fan_out", 200) },
		"family":                func() any { return h.run("family", 5) },
		"timers":                func() any { return object{"future": h.run("sleeper", 400), "past": h.run("sleeper", -10_000)} },
		"first_clock":           h.firstClock,
		"events":                h.events,
		"event_before_wait":     h.eventBeforeWait,
		"event_timeouts":        h.eventTimeouts,
		"continue_as_new":       h.continueAsNew,
		"failures":              h.failures,
		"retries":               h.retries,
		"terminate":             h.terminate,
		"terminate_recursively": h.terminateRecursively,
		"terminate_alone":       h.terminateAlone,
		"terminated_child":      h.terminatedChild,
		"terminate_scheduled":   h.terminateScheduled,
		"suspend":               h.suspend,
		"terminate_suspended":   h.terminateSuspended,
		"custom_status":         h.customStatus,
		"scheduled_start":       h.scheduledStart,
		"ids_in_use":            h.idsInUse,
		"reuse_policies":        h.reusePolicies,
		"bad_input":             func() any { return object{"id": refusal(h.tryStart("empty", nil, "@entity@key"))} },
		"unknown_instance":      h.unknownInstance,
		"unicode":               h.unicode,
		"megabyte":              h.megabyte,
		"many_at_once":          h.manyAtOnce,
		"unnamed_children":      func() any { return h.run("unnamed_children", nil) },
		"purge":                 h.purge,
	}
}

func (h hub) firstClock() any {
	before := time.Now().UnixMilli()
	return h.run("clock", nil)["output"].(float64) - float64(before)
}

func (h hub) events() any {
	id := h.start("listener", 10)
	for number := range 10 {
		h.raise(id, []string{"news", "NEWS"}[number%2], number)
	}
	return h.end(id)
}

func (h hub) eventBeforeWait() any {
	id := h.start("late_listener", nil)
	h.raise(id, "news", "early")
	return h.end(id)
}

func (h hub) eventTimeouts() any {
	id := h.start("impatient", 30_000)
	h.raise(id, "approval", nil)
	return object{"event": h.end(id), "timeout": h.run("impatient", 200)}
}

func (h hub) continueAsNew() any {
	id := h.start("collector", nil)
	for number := range 10 {
		h.raise(id, "item", number)
	}
	return object{"events": h.end(id), "counter": h.run("counter", 0)}
}

func (h hub) failures() any {
	return object{
		"activity":              h.run("failing_activity", "no nails"),
		"nothing":               h.run("failing_with_nothing", nil),
		"orchestration":         h.run("failing", "no screws"),
		"child":                 h.run("failing_child", "no bolts"),
		"unknown_activity":      h.run("unknown_activity", nil),
		"unknown_orchestration": h.run("nobody_has_this", nil),
	}
}

func (h hub) retries() any {
	return object{
		"activity": h.run("retrying", "activity"),
		"child":    h.run("retrying_child", "child"),
		"in_vain":  h.run("retrying_in_vain", "never"),
	}
}

func (h hub) terminate() any {
	id := h.running(h.start("listener", 1))
	h.stop(id, object{"reason": "enough"}, true)
	ended := h.end(id)
	h.stop(id, "again", true)
	h.stop("terminate-of-nobody", nil, true)
	return object{"ended": ended, "again": h.end(id)}
}

func (h hub) terminateRecursively() any {
	ids := []api.InstanceID{"with-them-1", "with-them-2"}
	id := h.start("waiting_family", ids)
	for _, child := range ids {
		h.running(child)
	}
	h.stop(id, "all of you", true)
	return []object{h.end(id), h.end(ids[0]), h.end(ids[1])}
}

func (h hub) terminateAlone() any {
	child := api.InstanceID("without-it")
	id := h.start("waiting_family", []api.InstanceID{child})
	h.running(child)
	h.stop(id, nil, false)
	ended, before := h.end(id), h.status(child)
	h.raise(child, "news", 1)
	return object{"ended": ended, "before": before, "child": h.end(child)}
}

func (h hub) terminatedChild() any {
	id := h.start("tolerant", "terminated-child")
	h.stop(h.running("terminated-child"), "no more", true)
	return h.end(id)
}

func (h hub) terminateScheduled() any {
	id := h.start("empty", nil, api.WithStartTime(time.Now().Add(time.Hour)))
	h.stop(id, "never", true)
	return h.end(id)
}

func (h hub) suspend() any {
	id := h.start("listener", 3)
	h.raise(id, "news", 0)
	must(h.client.SuspendOrchestration(context.Background(), id, "lunch"))
	until(func() bool { return h.status(id) == "SUSPENDED" })
	h.raise(id, "news", 1)
	h.raise(id, "news", 2)
	before := h.status(id)
	must(h.client.ResumeOrchestration(context.Background(), id, "back"))
	return object{"before": before, "after": h.end(id)}
}

func (h hub) terminateSuspended() any {
	id := h.start("listener", 1)
	must(h.client.SuspendOrchestration(context.Background(), id, ""))
	until(func() bool { return h.status(id) == "SUSPENDED" })
	h.stop(id, "asleep", true)
	return h.end(id)
}

func (h hub) customStatus() any {
	id := h.start("reporting", nil)
	var found []any
	for _, wanted := range []string{`{"step":1}`, `""`} {
		until(func() bool { return h.fetch(id).SerializedCustomStatus == wanted })
		found = append(found, parsed(wanted))
		h.raise(id, "news", nil)
	}
	h.end(id)
	return append(found, parsed(h.fetch(id).SerializedCustomStatus))
}

func (h hub) scheduledStart() any {
	startAt := time.Now().Add(1500 * time.Millisecond)
	id := h.start("clock", nil, api.WithStartTime(startAt))
	before := h.status(id)
	return object{"before": before, "late": h.end(id)["output"].(float64) - float64(startAt.UnixMilli())}
}

func (h hub) idsInUse() any {
	id := h.running(h.start("listener", 1, api.WithInstanceID("in-use")))
	refused := refusal(h.tryStart("listener", 1, id))
	h.stop(id, nil, true)
	h.end(id)
	return object{"refused": refused, "replaced": h.end(h.start("empty", nil, api.WithInstanceID(id)))}
}

// reusePolicies shows the old form of the policy: a list of statuses and what to do when the instance has one of them.
func (h hub) reusePolicies() any {
	id := h.running(h.start("listener", 1, api.WithInstanceID("reused")))
	policy := func(action api.CreateOrchestrationAction, statuses ...api.OrchestrationStatus) api.NewOrchestrationOptions {
		return api.WithOrchestrationIdReusePolicy(&api.OrchestrationIdReusePolicy{Action: action, OperationStatus: statuses})
	}
	try := func(option api.NewOrchestrationOptions) string {
		_, err := h.client.ScheduleNewOrchestration(context.Background(), "empty", api.WithInstanceID(id), option)
		return refusal(err)
	}
	live := api.RUNTIME_STATUS_RUNNING
	ended := api.RUNTIME_STATUS_COMPLETED
	result := object{
		"error":    try(policy(api.REUSE_ID_ACTION_ERROR, live)),
		"unlisted": try(policy(api.REUSE_ID_ACTION_IGNORE, ended)),
		"ignored":  try(policy(api.REUSE_ID_ACTION_IGNORE, live)),
		"kept":     h.fetch(id).Name,
		"replaced": try(policy(api.REUSE_ID_ACTION_TERMINATE, live)),
	}
	result["after"] = h.end(id)
	return result
}

func (h hub) unknownInstance() any {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, waited := h.client.WaitForOrchestrationCompletion(ctx, "nobody")
	_, read := h.client.FetchOrchestrationMetadata(context.Background(), "nobody")
	return object{"state": h.status("nobody"), "wait": refusal(waited), "read": refusal(read)}
}

func (h hub) unicode() any {
	id := h.start("listener", len(texts), api.WithInstanceID("größer 🎉 漢字/\\#?%_'"))
	for _, text := range texts {
		h.raise(id, "news", text)
	}
	output := h.end(id)["output"]
	return object{"same": h.fetch(id).InstanceID == id, "got": output, "sent": texts}
}

func (h hub) megabyte() any {
	id := h.start("late_listener", megabyte)
	h.raise(id, "news", megabyte)
	output := h.end(id)["output"]
	return []bool{parsed(h.fetch(id).SerializedInput) == megabyte, output == megabyte}
}

func (h hub) manyAtOnce() any {
	var ids []api.InstanceID
	for range 30 {
		ids = append(ids, h.start("chain", 3))
	}
	var outputs []any
	for _, id := range ids {
		outputs = append(outputs, h.end(id)["output"])
	}
	return outputs
}

func (h hub) purge() any {
	live, done := h.running(h.start("listener", 1)), h.start("empty", nil)
	h.end(done)
	counts := []int{}
	for _, id := range []api.InstanceID{live, done, done} {
		err := h.client.PurgeOrchestrationState(context.Background(), id)
		switch {
		case err == nil:
			counts = append(counts, 1)
		case errors.Is(err, api.ErrInstanceNotFound):
			counts = append(counts, 0)
		default:
			panic(err)
		}
	}
	h.stop(live, nil, true)
	return object{"counts": counts, "gone": h.status(done)}
}

func (h hub) start(name string, input any, options ...api.NewOrchestrationOptions) api.InstanceID {
	if input != nil {
		options = append(options, api.WithInput(input))
	}
	id, err := h.client.ScheduleNewOrchestration(context.Background(), name, options...)
	must(err)
	return id
}

func (h hub) tryStart(name string, input any, id api.InstanceID) error {
	_, err := h.client.ScheduleNewOrchestration(context.Background(), name, api.WithInstanceID(id), api.WithInput(input))
	return err
}

func (h hub) raise(id api.InstanceID, name string, data any) {
	var options []api.RaiseEventOptions
	if data != nil {
		options = append(options, api.WithEventPayload(data))
	}
	must(h.client.RaiseEvent(context.Background(), id, name, options...))
}

func (h hub) stop(id api.InstanceID, output any, recursive bool) {
	options := []api.TerminateOptions{api.WithRecursiveTerminate(recursive)}
	if output != nil {
		options = append(options, api.WithOutput(output))
	}
	must(h.client.TerminateOrchestration(context.Background(), id, options...))
}

func (h hub) running(id api.InstanceID) api.InstanceID {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	_, err := h.client.WaitForOrchestrationStart(ctx, id)
	must(err)
	return id
}

func (h hub) end(id api.InstanceID) object {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	state, err := h.client.WaitForOrchestrationCompletion(ctx, id)
	must(err)
	return shown(state)
}

func (h hub) run(name string, input any) object {
	return h.end(h.start(name, input))
}

func (h hub) fetch(id api.InstanceID) *api.OrchestrationMetadata {
	state, err := h.client.FetchOrchestrationMetadata(context.Background(), id)
	must(err)
	return state
}

func (h hub) status(id api.InstanceID) any {
	state, err := h.client.FetchOrchestrationMetadata(context.Background(), id)
	if errors.Is(err, api.ErrInstanceNotFound) {
		return nil
	}
	must(err)
	return shown(state)["status"]
}

// shown returns what the tests look at in a state.
func shown(state *api.OrchestrationMetadata) object {
	var failure any
	if details := state.FailureDetails; details != nil {
		failure = object{"type": details.ErrorType, "message": details.ErrorMessage, "traced": details.StackTrace.GetValue() != ""}
	}
	status := strings.TrimPrefix(state.RuntimeStatus.String(), "ORCHESTRATION_STATUS_")
	return object{"status": status, "output": parsed(state.SerializedOutput), "failure": failure}
}

func parsed(text string) any {
	if text == "" {
		return nil
	}
	var value any
	must(json.Unmarshal([]byte(text), &value))
	return value
}

// refusal returns the text of the error that a call ends with, "" for none.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// until waits for something that a client can only ask for.
func until(holds func() bool) {
	for range 1_000 {
		if holds() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	panic("it did not happen")
}
