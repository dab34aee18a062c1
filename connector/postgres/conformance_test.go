package postgres

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/operator"
)

// TestConforms lets the suite write whole records, whose bytes a column of type bytea keeps.
func TestConforms(t *testing.T) {
	connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
		p := &place{server: use(t), table: freshName()}
		p.exec(t, fmt.Sprintf(`CREATE TABLE %s (understudy_task integer, understudy_row bigint, record bytea, PRIMARY KEY (understudy_task, understudy_row))`, p.table))
		o := p.options()
		o.Identity, o.Column = "", "record"
		return connectortest.CausalPlace{
			Sink: func() operator.CausalSink { return Sink(o) },
			Read: func(task int) []string {
				var records []string
				for _, text := range p.rows(t, fmt.Sprintf(`SELECT encode(record, 'hex') FROM %s WHERE understudy_task = $1 ORDER BY understudy_row`, p.table), task) {
					record, err := hex.DecodeString(text)
					require.NoError(t, err)
					records = append(records, string(record))
				}
				return records
			},
			Faulty: func(do connectortest.Steps) operator.CausalSink {
				faulty := o
				faulty.step = steps(do)
				return Sink(faulty)
			},
		}
	})
}
