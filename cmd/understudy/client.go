package main

import (
	"flag"

	"github.com/spf13/cobra"

	"github.com/understudy-stream/understudy/internal/console"
)

// newClientCommands makes the commands that ask the coordinators of a cluster.
func newClientCommands() []*cobra.Command {
	var all []*cobra.Command
	for i := range console.Verbs {
		v, reach := &console.Verbs[i], &console.Reach{}
		use := v.Name
		if v.Args != "" {
			use += " " + v.Args
		}
		cmd := &cobra.Command{
			Use: use + " --state DIR | --coordinators HOST:PORT,...", Short: v.About, Long: v.Long(), Example: v.Examples("understudy"),
			Args: cobra.ArbitraryArgs,
			RunE: func(cmd *cobra.Command, args []string) error {
				return v.Do(cmd.Context(), reach, args, cmd.OutOrStdout())
			},
		}
		cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
		goFlags(cmd, func(fs *flag.FlagSet) { reach.Register(fs, clusterName, "format") })
		all = append(all, cmd)
	}
	return all
}
