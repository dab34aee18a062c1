package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
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
	root.AddCommand(newRunCommand(), newVerifyCommand())
	return root
}

func knownCommand(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError(fmt.Errorf("unknown command %q: want run or verify", args[0]))
}

// execute runs the command and returns the exit code.
func execute(root *cobra.Command, stderr io.Writer) int {
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	code := 1
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err == nil {
			return exit.code
		}
		code = exit.code
	}
	fmt.Fprintln(stderr, "understudy:", strings.TrimPrefix(err.Error(), "understudy: "))
	return code
}

func main() {
	os.Exit(execute(newRootCommand(), os.Stderr))
}
