package parquet

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/understudy-stream/understudy/connector/file"
)

// ParseSourceURL reads a URL of files to read, such as file:///data/*.parquet?batch-rows=1000. The path is as that of
// file.ParseSourceURL, and a mistake is a file.ErrURL.
func ParseSourceURL(text string) (glob string, o SourceOptions, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", o, fmt.Errorf("%w: %w", file.ErrURL, err)
	}
	values := u.Query()
	if rows := values.Get("batch-rows"); rows != "" {
		if o.BatchRows, err = strconv.Atoi(rows); err != nil || o.BatchRows < 1 {
			return "", o, fmt.Errorf("%w: batch-rows: %q is no number of rows", file.ErrURL, rows)
		}
		values.Del("batch-rows")
		u.RawQuery = values.Encode()
	}
	s, err := file.ParseSourceURL(u.String())
	if err == nil && s.Format != file.FormatParquet {
		err = fmt.Errorf("%w: %s is not of format parquet", file.ErrURL, s.Glob)
	}
	return s.Glob, o, err
}
