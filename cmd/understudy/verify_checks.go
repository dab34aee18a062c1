package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/understudy-stream/understudy/verify"
)

func newVerifyIDs(s *verifySettings) *cobra.Command {
	var in, out verifyFiles
	var multiset bool
	cmd := &cobra.Command{
		Use:   "ids --input GLOB --output GLOB [--id FIELD,...] [--input-id FIELD,...]",
		Short: "Each input id stands exactly once in the output",
		Long: `Check that each input id stands exactly once in the output.

Violations: missing, duplicate, unexpected, torn.

An id may consist of several fields. If one side has it in one field and the other in several, these are joined by colons.
Exit code 0: clean, 1: violations, 2: unusable input.`,
		Example: `  # records with an id
  understudy verify ids --input 'in/*.jsonl' --output 'out/*.jsonl' --id id
  # text files, of which each line came out with the file and offset it was read from
  understudy verify ids --input 'in/*.txt' --output out --id file,offset
  # CSV in, JSONL out
  understudy verify ids --input orders.csv.gz --input-id order_id --output 'out/*.jsonl' --id order.id`,
		Args: verifyArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "input", "output"); err != nil {
				return err
			}
			return s.run(cmd, func(ctx context.Context, opt verify.Options) (*verify.Report, error) {
				input, inErr := in.selection()
				output, outErr := out.selection()
				if err := errors.Join(inErr, outErr); err != nil {
					return nil, err
				}
				return verify.CheckIDs(ctx, verify.IDsOptions{Options: opt, Input: input, Output: output, Multiset: multiset})
			})
		},
	}
	in.input(cmd)
	out.output(cmd)
	cmd.Flags().StringSliceVar(&out.fields, "id", []string{"id"}, "`FIELD[,FIELD...]` of the output's id")
	cmd.Flags().BoolVar(&multiset, "multiset", false, "an id may stand several times in the input, and must as often in the output")
	return cmd
}

func newVerifyRunning(s *verifySettings) *cobra.Command {
	var out, expect, words verifyFiles
	var opt verify.RunningOptions
	var key, val string
	cmd := &cobra.Command{
		Use:   "running --output GLOB [--key FIELD] [--value FIELD] [--words GLOB | --expect FILE]",
		Short: "Per key, a running aggregate takes each value once, in order",
		Long: `Check that per key a running aggregate, such as a count, takes each value once, in the order in which they stand in a file:
--start, --start plus --step, and so on.

Violations: missing, duplicate, out-of-order, surplus, off-scale, spread, torn.

How far a key must come is only known with --words, which counts the words of text files (runs of ASCII letters and digits,
lower-cased, as tr -cs A-Za-z0-9 '\n' | tr A-Z a-z | sort | uniq -c does), or with --expect, which reads that number per key
from JSONL or CSV with the same fields, or from lines as uniq -c writes them.
Exit code 0: clean, 1: violations, 2: unusable input.`,
		Example: `  # the word count of some texts
  understudy verify running --output 'out/*.jsonl' --words 'in/*.txt'
  # sums of 10, in CSV, of keys that move between files
  understudy verify running --output 'out/*.csv' --key account --value balance --start 10 --step 10 --key-spread`,
		Args: verifyArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "output"); err != nil {
				return err
			}
			return s.run(cmd, func(ctx context.Context, shared verify.Options) (*verify.Report, error) {
				out.fields = []string{key, val}
				var errs [3]error
				opt.Options = shared
				opt.Output, errs[0] = out.selection()
				opt.Expect, errs[1] = expect.selection()
				opt.Words, errs[2] = words.selection()
				if err := errors.Join(errs[:]...); err != nil {
					return nil, err
				}
				return verify.CheckRunning(ctx, opt)
			})
		},
	}
	out.output(cmd)
	f := cmd.Flags()
	f.StringVar(&key, "key", "word", "`FIELD` of the key")
	f.StringVar(&val, "value", "count", "`FIELD` of the aggregate")
	f.Int64Var(&opt.Start, "start", 1, "first value of each key")
	f.Int64Var(&opt.Step, "step", 1, "distance of the values")
	f.BoolVar(&opt.Spread, "key-spread", false, "a key may stand in several files; order counts within each")
	f.StringArrayVar(&expect.paths, "expect", nil, "`FILE` with the number of values per key")
	f.StringArrayVar(&words.paths, "words", nil, "`GLOB` of texts whose words are the keys (also --input-words)")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.Replace(name, "input-words", "words", 1))
	})
	return cmd
}

func newVerifyEqual(s *verifySettings) *cobra.Command {
	var files verifyFiles
	var asJSON bool
	var fieldsB []string
	cmd := &cobra.Command{
		Use:   "equal A B",
		Short: "Two files or globs hold the same records, in any order",
		Long: `Check that A and B, each a GLOB, hold the same lines, each as often, in any order.

Violations: only-in-a, only-in-b, torn.
Exit code 0: clean, 1: violations, 2: unusable input.`,
		Example: `  understudy verify equal expected.txt 'out/*.txt'
  # as JSON values: the order of keys and the spelling of numbers do not matter
  understudy verify equal --json expected.jsonl out
  # some fields only
  understudy verify equal --fields id,total 'expected/*.csv' 'out/*.jsonl'`,
		Args: verifyArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, func(ctx context.Context, opt verify.Options) (*verify.Report, error) {
				a, err := files.selection()
				if err != nil {
					return nil, err
				}
				b := a
				a.Paths, b.Paths = args[:1], args[1:]
				equal := verify.EqualOptions{Options: opt, A: a, B: b}
				switch {
				case asJSON && len(files.fields) > 0:
					return nil, errors.New("verify: --json and --fields exclude each other")
				case asJSON:
					equal.Mode = verify.EqualJSON
				case len(files.fields) > 0:
					equal.Mode = verify.EqualFields
				}
				if len(fieldsB) > 0 {
					equal.B.Fields = fieldsB
				}
				return verify.CheckEqual(ctx, equal)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "compare JSON values instead of bytes")
	f.StringSliceVar(&files.fields, "fields", nil, "compare only these fields: `FIELD[,FIELD...]`")
	f.StringSliceVar(&fieldsB, "fields-b", nil, "what the fields are called in B, if different: `FIELD[,FIELD...]`")
	f.StringVar(&files.format, "input-format", "auto", "with --fields: auto, jsonl, csv or lines")
	files.tornFlag(cmd, "accept")
	return cmd
}

func newVerifyDraws(s *verifySettings) *cobra.Command {
	var in, out verifyFiles
	var names verify.DrawFields
	cmd := &cobra.Command{
		Use:   "draws --input GLOB --output GLOB [--input-id FIELD,...]",
		Short: "One draw per input id; windows follow from the visible draws",
		Long: `Check a job that draws at random once per input record, shows what it drew, and adds it up per key and window:
  {"kind":"draw","id":"7","key":"k","random":42}
  {"kind":"window","key":"k","start":1000,"count":1,"sum":42,"ids":["7"]}
Each input id must have one draw, each draw must be in one window of its key, and each window must follow from the draws that
are visible. An input id of several fields is joined by colons. The names of the fields are flags.

Violations: missing, duplicate, unexpected, window-missing, window-duplicate, window-unexpected, window-key, window-count,
window-sum, window-repeated, torn.
Exit code 0: clean, 1: violations, 2: unusable input.`,
		Example: `  understudy verify draws --input 'in/*.jsonl' --output 'out/*.jsonl'
  # two sinks; the input is text, its ids are file:offset
  understudy verify draws --input 'in/*.txt' --output draws --output windows`,
		Args: verifyArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "input", "output"); err != nil {
				return err
			}
			return s.run(cmd, func(ctx context.Context, opt verify.Options) (*verify.Report, error) {
				input, inErr := in.selection()
				output, outErr := out.selection()
				if err := errors.Join(inErr, outErr); err != nil {
					return nil, err
				}
				output.Format = verify.JSONL
				return verify.CheckDraws(ctx, verify.DrawsOptions{Options: opt, Input: input, Output: output, Names: names})
			})
		},
	}
	in.input(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&out.paths, "output", nil, "`GLOB` of draws and windows")
	out.tornFlag(cmd, "report")
	for _, name := range []struct {
		to                     *string
		flag, byDefault, usage string
	}{
		{&names.Kind, "kind", "kind", "`FIELD` that tells draws from windows"},
		{&names.Draw, "draw-kind", "draw", "what it says of draws"},
		{&names.ID, "id", "id", "`FIELD` of a draw: the input's id"},
		{&names.Key, "key", "key", "`FIELD` of both: the key"},
		{&names.Random, "random", "random", "`FIELD` of a draw: what was drawn"},
		{&names.Window, "window-kind", "window", "what --kind says of windows"},
		{&names.Start, "start", "start", "`FIELD` of a window: its start"},
		{&names.Count, "count", "count", "`FIELD` of a window: the number of its draws"},
		{&names.Sum, "sum", "sum", "`FIELD` of a window: the sum of what they drew"},
		{&names.IDs, "ids", "ids", "`FIELD` of a window: their ids"},
	} {
		f.StringVar(name.to, name.flag, name.byDefault, name.usage)
	}
	return cmd
}

func newVerifyHistory(s *verifySettings) *cobra.Command {
	var allow []string
	cmd := &cobra.Command{
		Use:   "history FILE",
		Short: "A history of sends and polls has none of the anomalies of Jepsen's kafka workload",
		Long: `Look for anomalies in a history of operations in the form of Jepsen's kafka workload, as EDN or JSON, one array or one operation
after the other:
  {:type :ok, :f :txn, :process 0, :index 3, :value [[:send 1 [7 "a"]] [:poll {2 [[0 "b"] [1 "c"]]}]]}
  {"type":"ok","f":"poll","process":1,"index":5,"value":[["poll",{"1":[[7,"a"]]}]]}

Anomalies, by their names in Jepsen: ` + strings.Join(verify.Anomalies(), ", ") + `.

All of them are violations unless --allow names them. Jepsen allows Kafka int-send-skip, and poll-skip and nonmonotonic-poll to
consumers that subscribe, since a rebalance may move them. The history is held in memory.
Exit code 0: clean, 1: violations, 2: unusable input.`,
		Example: `  understudy verify history store/latest/history.edn
  understudy verify history ops.jsonl --allow int-send-skip,poll-skip`,
		Args: verifyArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, func(ctx context.Context, opt verify.Options) (*verify.Report, error) {
				return verify.CheckHistory(ctx, verify.HistoryOptions{Options: opt, Path: args[0], Allow: allow})
			})
		},
	}
	cmd.Flags().StringSliceVar(&allow, "allow", nil, "anomalies that are no violations: `NAME[,NAME...]`")
	return cmd
}
