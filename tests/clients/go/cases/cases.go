// Package cases runs cases and says how each ended, in the words that tests/lib/cases.py takes from a program.
package cases

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Bootstrap is the address of the broker under test.
var Bootstrap = os.Getenv("BOOTSTRAP")

// failed is what a check panics with: it ends its case and nothing else.
type failed string

// Named makes a name that no earlier run has used.
func Named(name string) string { return name + "-" + os.Getenv("SALT") }

// How many times its limit a case has: the limits are for a machine that does nothing else.
const patience = 3

// Run runs a case for at most so many times its limit, unless the arguments choose others.
func Run(name string, limit time.Duration, body func(context.Context)) {
	if len(os.Args) > 1 && !slices.Contains(os.Args[1:], name) {
		return
	}
	limit *= patience
	began := time.Now()
	ended := make(chan string, 1)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	go func() { ended <- outcome(ctx, body) }()
	reason := ""
	select {
	case reason = <-ended:
	case <-time.After(limit + 5*time.Second):
		// the clients were told to stop by the context
		reason = fmt.Sprintf("not finished after %s", limit)
	}
	word := "pass"
	if reason != "" {
		word = "fail"
	}
	fmt.Printf("case\t%s\t%s\t%.1f\t%s\n", name, word, time.Since(began).Seconds(), strings.Join(strings.Fields(reason), " "))
}

// End says that all cases were run.
func End() { fmt.Print("cases\tend\n") }

func outcome(ctx context.Context, body func(context.Context)) (reason string) {
	defer func() {
		switch thrown := recover().(type) {
		case nil:
		case failed:
			reason = string(thrown)
		default:
			debug.PrintStack()
			reason = fmt.Sprint("panic: ", thrown)
		}
	}()
	body(ctx)
	return ""
}

// Fail ends the case.
func Fail(format string, arguments ...any) { panic(failed(fmt.Sprintf(format, arguments...))) }

// Ok fails the case if there is an error.
func Ok(err error, what string) {
	if err != nil {
		Fail("%s: %v", what, err)
	}
}

// Must gives the value of a call that must not fail.
func Must[T any](value T, err error) T {
	Ok(err, fmt.Sprintf("getting %T", value))
	return value
}

// Same fails the case unless the two are deeply equal.
func Same(found, expected any, what string) {
	if !reflect.DeepEqual(found, expected) {
		Fail("%s: %v, not %v", what, found, expected)
	}
}

// Soon waits until what is found is what is expected: a Kafka that has answered a change may not show it yet.
func Soon[T any](found func() T, expected T, what string) {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) && !reflect.DeepEqual(found(), expected) {
		time.Sleep(20 * time.Millisecond)
	}
	Same(found(), expected, what)
}

// Until waits for a condition.
func Until(ctx context.Context, what string, condition func() bool) {
	for !condition() {
		select {
		case <-ctx.Done():
			Fail("%s: not in time", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
