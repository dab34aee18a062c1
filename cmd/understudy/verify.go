package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/understudy-stream/understudy/verify"
)

// Exit codes of verify.
const (
	verifyViolated = 1
	verifyUnusable = 2
)

// progressInterval is how often a line of progress is written.
const progressInterval = time.Second

const verifyLong = `Check the output of a pipeline from outside, by reading its files. Nothing of the engine takes part.

Files are JSONL, CSV or plain lines, each also as .gz. GLOB is a glob in quotes, in which ** matches folders of any depth, a
file, or a folder, which stands for the .jsonl, .ndjson, .json, .csv and .txt files below it (.gz too, hidden ones not). Flags
that take a GLOB may be repeated.

FIELD is a dotted path in a JSON object, the name of a CSV column, or one of
  @file    the file, as the glob found it
  @offset  the offset of the record's first byte, in the unpacked file
  @number  the number of the line, from 1
  @line    the whole line
of which only the latter exist for plain lines.

Memory stays within --memory, plus the longest line, whatever the number of records; what does not fit is sorted on disk.

Exit codes:
  0  clean
  1  violations, listed with counts and first offenders
  2  no verdict: unusable input, wrong flags, full disk, interrupted`

// verifySettings are the flags that all checks share.
type verifySettings struct {
	memory   string
	tempDir  string
	first    int
	progress bool
	report   string
}

func newVerifyCommand() *cobra.Command {
	s := &verifySettings{}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the output of a pipeline from outside",
		Long:  verifyLong,
		Args:  verifyArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&s.memory, "memory", "256MiB", "memory for sorting, such as 64MiB or 1GiB")
	flags.StringVar(&s.tempDir, "temp-dir", "", "folder for what does not fit in memory (default: the system's)")
	flags.IntVar(&s.first, "first", verify.DefaultOffenders, "how many offenders of each kind to show")
	flags.BoolVar(&s.progress, "progress", false, "write progress to stderr (default: if it is a terminal)")
	flags.StringVarP(&s.report, "format", "o", "text", "form of the report: text or json")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{verifyUnusable, err} })
	cmd.AddCommand(newVerifyIDs(s), newVerifyRunning(s), newVerifyEqual(s), newVerifyDraws(s), newVerifyHistory(s))
	return cmd
}

// verifyArgs makes wrong arguments exit as unusable input does, with a hint at the usual reason.
func verifyArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		return &exitError{verifyUnusable, fmt.Errorf("%w (a glob must be quoted, or the shell expands it)", err)}
	}
}

// options turns the shared flags into options of a check.
func (s *verifySettings) options(cmd *cobra.Command) (verify.Options, error) {
	memory, err := parseSize(s.memory)
	if err != nil {
		return verify.Options{}, err
	}
	if s.report != "text" && s.report != "json" {
		return verify.Options{}, fmt.Errorf("verify: unknown form of report %q; known are text, json", s.report)
	}
	opt := verify.Options{Memory: memory, TempDir: s.tempDir, Offenders: s.first}
	show := s.progress
	if !cmd.Flags().Changed("progress") {
		show = isTerminal(cmd.ErrOrStderr())
	}
	if show {
		opt.Progress = progressPrinter(cmd.ErrOrStderr())
	}
	return opt, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// run does a check and writes its report. Its error carries the exit code.
func (s *verifySettings) run(cmd *cobra.Command, check func(context.Context, verify.Options) (*verify.Report, error)) error {
	cmd.SilenceUsage = true
	opt, err := s.options(cmd)
	if err != nil {
		return &exitError{verifyUnusable, err}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := check(ctx, opt)
	if err != nil {
		return &exitError{verifyUnusable, err}
	}
	if s.report == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetEscapeHTML(false)
		err = enc.Encode(report)
	} else {
		err = report.WriteText(cmd.OutOrStdout())
	}
	if err != nil {
		return &exitError{verifyUnusable, fmt.Errorf("verify: writing the report: %w", err)}
	}
	if !report.Clean() {
		return &exitError{code: verifyViolated}
	}
	return nil
}

// progressPrinter returns a hook that writes a line of progress now and then.
func progressPrinter(w io.Writer) func(verify.Progress) {
	var printed time.Duration
	return func(p verify.Progress) {
		if p.Elapsed-printed < progressInterval {
			return
		}
		printed = p.Elapsed
		done := ""
		if p.Total > 0 {
			done = fmt.Sprintf(" %d%%,", min(100, 100*p.Bytes/p.Total))
		}
		fmt.Fprintf(w, "%s:%s %d records, %s\n", p.Phase, done, p.Records, p.Elapsed.Round(time.Second))
	}
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1}, {"", 1}}

// parseSize reads a number of bytes such as 256MiB.
func parseSize(text string) (int64, error) {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/unit.bytes {
			break
		}
		return n * unit.bytes, nil
	}
	return 0, fmt.Errorf("verify: %q is not a size such as 256MiB", text)
}

// verifyFiles are the flags of one side of a check.
type verifyFiles struct {
	paths  []string
	format string
	fields []string
	torn   string
}

func (f *verifyFiles) selection() (verify.Selection, error) {
	sel := verify.Selection{Paths: f.paths, Fields: f.fields}
	var err, tornErr error
	if f.format != "" {
		sel.Format, err = verify.ParseFormat(f.format)
	}
	if f.torn != "" {
		sel.Torn, tornErr = verify.ParseTorn(f.torn)
	}
	return sel, errors.Join(err, tornErr)
}

// input adds the flags of a check's input.
func (f *verifyFiles) input(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.paths, "input", nil, "`GLOB` of what was fed in")
	cmd.Flags().StringVar(&f.format, "input-format", "auto", "auto, jsonl, csv or lines")
	cmd.Flags().StringSliceVar(&f.fields, "input-id", nil,
		"`FIELD[,FIELD...]` of the input's id (default: @file,@offset for plain lines, otherwise as in the output)")
}

// output adds the flags of a check's output.
func (f *verifyFiles) output(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.paths, "output", nil, "`GLOB` of what came out")
	cmd.Flags().StringVar(&f.format, "output-format", "auto", "auto, jsonl, csv or lines")
	f.tornFlag(cmd, "report")
}

func (f *verifyFiles) tornFlag(cmd *cobra.Command, byDefault string) {
	cmd.Flags().StringVar(&f.torn, "torn", byDefault,
		"a last line without newline: report (a violation), accept (a record), ignore (not a record)")
}

// required is the error for flags that are not given.
func required(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			return &exitError{verifyUnusable, fmt.Errorf("--%s is required", name)}
		}
	}
	return nil
}
