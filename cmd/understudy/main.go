package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/understudy-stream/understudy/internal/console"
)

// exitError is an error that says with which code to exit. err is nil if everything has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "understudy",
		Short:         "Exactly-once stream pipelines",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.AddCommand(newRunCommand(), newDemoCommand(), newVerifyCommand(), newNexmarkCommand(), newBenchCommand(), newCoordinatorCommand(), newWorkerCommand())
	root.AddCommand(newClientCommands()...)
	return root
}

func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usageError(fmt.Errorf("unknown command %q: want %s", args[0], strings.Join(names, ", ")))
}

// execute runs the command and returns the exit code.
func execute(root *cobra.Command, stderr io.Writer) int {
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	code := console.Code(err)
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err == nil {
			return exit.code
		}
		code = exit.code
	}
	fmt.Fprintln(stderr, "understudy:", console.Sentence(err))
	return code
}

func main() {
	os.Exit(execute(newRootCommand(), os.Stderr))
}
