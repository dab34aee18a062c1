package console

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// Manual is the help of a command of an embedding program.
type Manual struct {
	Usage    string // what is typed
	Long     string
	Examples string
}

// Parse reads flags, which may stand before, between and behind the arguments that it returns. --help prints the manual and returns
// flag.ErrHelp.
func (m *Manual) Parse(fs *flag.FlagSet, args []string, stdout io.Writer) (rest []string, err error) {
	fs.SetOutput(io.Discard)
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			return nil, errors.Join(err, m.write(stdout, fs))
		}
		if err != nil {
			return nil, &UsageError{err}
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
}

func (m *Manual) write(w io.Writer, fs *flag.FlagSet) error {
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s\n", m.Long, m.Usage)
	if m.Examples != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", m.Examples)
	}
	fmt.Fprintf(w, "\nFlags:\n")
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fs.VisitAll(func(f *flag.Flag) {
		name, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "false" {
			text += " (default " + f.DefValue + ")"
		}
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		fmt.Fprintf(tab, "  %s%s\t%s\n", dashes, strings.TrimSpace(f.Name+" "+name), text)
	})
	return tab.Flush()
}

// IsTerminal reports whether a person may be looking.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
