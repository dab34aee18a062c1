package postgres

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// maxName is how many bytes of a name the server keeps; it cuts off the rest without an error.
const maxName = 63

// name is that of a table, perhaps with its schema.
type name struct{ schema, table string }

// parseName reads schema.table or table. Parts may be quoted as in SQL.
func parseName(text string) (name, error) {
	var parts []string
	rest := text
	for {
		var part string
		if quoted, found := strings.CutPrefix(rest, `"`); found {
			var b strings.Builder
			for {
				at := strings.IndexByte(quoted, '"')
				if at < 0 {
					return name{}, fmt.Errorf("%w: %q is no name of a table", ErrTable, text)
				}
				b.WriteString(quoted[:at])
				quoted = quoted[at+1:]
				if !strings.HasPrefix(quoted, `"`) {
					break
				}
				b.WriteByte('"')
				quoted = quoted[1:]
			}
			part, rest = b.String(), quoted
		} else {
			at := strings.IndexByte(rest, '.')
			if at < 0 {
				at = len(rest)
			}
			part, rest = rest[:at], rest[at:]
		}
		parts = append(parts, part)
		more, found := strings.CutPrefix(rest, ".")
		if !found {
			break
		}
		rest = more
	}
	bad := rest != "" || len(parts) > 2
	for _, p := range parts {
		bad = bad || p == "" || len(p) > maxName || strings.ContainsRune(p, 0)
	}
	switch {
	case bad:
		return name{}, fmt.Errorf("%w: %q is no name of a table", ErrTable, text)
	case len(parts) == 2:
		return name{schema: parts[0], table: parts[1]}, nil
	}
	return name{table: parts[0]}, nil
}

// String gives the name as SQL has it.
func (n name) String() string {
	if n.schema == "" {
		return quote(n.table)
	}
	return quote(n.schema, n.table)
}

// beside names a table of the sink's own, in the same schema.
func (n name) beside(suffix string) (name, error) {
	n.table += suffix
	if len(n.table) > maxName {
		return n, fmt.Errorf("%w: %q is longer than the %d bytes that the server keeps", ErrTable, n.table, maxName)
	}
	return n, nil
}

func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }
