package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/understudy-stream/understudy/internal/nexmark"
)

// generateOptions are the flags of `understudy nexmark generate`.
type generateOptions struct {
	events uint64
	first  uint64
	rate   uint64
	group  uint64
	ids    bool
}

func newNexmarkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nexmark",
		Short: "The events of the Nexmark benchmark; its queries are jobs of `understudy run`",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGenerateCommand())
	return cmd
}

func newGenerateCommand() *cobra.Command {
	o := &generateOptions{}
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Write events as tab-separated values",
		Long: `Write the events that Apache Beam's generator gives, as lines of tab-separated values:

  P  id name email card city state ms extra
  A  id name description initial-bid reserve ms expires seller category extra
  B  auction bidder price ms extra`,
		Example: `  understudy nexmark generate --events 100000 | md5sum
  understudy nexmark generate --events 1000 --ids > bids.jsonl  # what ` + "`verify draws`" + ` compares q12x with`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(fmt.Errorf("unexpected argument %q", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.Uint64Var(&o.events, "events", 0, "how many events (required)")
	f.Uint64Var(&o.first, "first", 0, "number of the first event")
	f.Uint64Var(&o.rate, "rate", nexmark.DefaultRate, "events per second of event time")
	f.Uint64Var(&o.group, "group", 1, "so many consecutive events are out of order")
	f.BoolVar(&o.ids, "ids", false, `write the numbers of the bids instead, as objects {"id":N}`)
	return cmd
}

// generateBatch is how many events are made at a time.
const generateBatch = 1000

// generator checks the flags.
func (o *generateOptions) generator() (*nexmark.Generator, error) {
	switch {
	case o.events == 0:
		return nil, errors.New("--events is required")
	case o.rate == 0 || o.group == 0:
		return nil, errors.New("--rate and --group: want at least 1")
	}
	c := nexmark.Config{Rate: o.rate, Group: o.group}
	g, err := nexmark.NewGenerator(c)
	if err != nil {
		return nil, err
	}
	if most := c.Most(); o.first > most || o.events > most-o.first {
		return nil, fmt.Errorf("--events %d from --first %d: at --rate %d there are %d events at most, whose times fit", o.events, o.first, o.rate, most)
	}
	return g, nil
}

func (o *generateOptions) run(stdout io.Writer) error {
	g, err := o.generator()
	if err != nil {
		return usageError(err)
	}
	w := bufio.NewWriterSize(stdout, 1<<20)
	var events []nexmark.Event
	var line []byte
	for done := uint64(0); done < o.events; done += uint64(len(events)) {
		events = g.Append(events[:0], o.first+done, int(min(generateBatch, o.events-done)))
		for i := range events {
			if line = o.appendLine(line[:0], &events[i]); len(line) == 0 {
				continue
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

func (o *generateOptions) appendLine(dst []byte, e *nexmark.Event) []byte {
	switch {
	case !o.ids:
		return nexmark.AppendTSV(dst, e)
	case e.Kind == nexmark.BidKind:
		return append(strconv.AppendUint(append(dst, `{"id":`...), e.Number, 10), "}\n"...)
	}
	return dst
}
